"""The reader's own images: a folder becomes an array or a stream, a training becomes a report."""
