"""Every reference is complete, and every citation and glossary link leads somewhere."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from pybtex.database import parse_file

BOOK = Path(__file__).parent.parent / "book"
ENTRIES = parse_file(BOOK / "references.bib").entries
VENUE = {
    "article": "journal",
    "inproceedings": "booktitle",
    "incollection": "booktitle",
    "book": "publisher",
    "phdthesis": "school",
    "techreport": "institution",
    "misc": "howpublished",
}
GREEK = r"\\(beta|varepsilon|theta|lambda|Lambda|mu|sigma|tau|varphi|omega)"
PAGES = sorted([*BOOK.rglob("*.md"), *BOOK.glob("*/*.ipynb")])


def text_of(page):
    """The page's Markdown, captions of its figures included."""
    if page.suffix == ".md":
        return page.read_text("utf-8")
    cells = nbformat.read(page, as_version=4).cells
    captions = (cell.metadata.get("mystnb", {}).get("figure", {}).get("caption") for cell in cells)
    prose = (cell.source for cell in cells if cell.cell_type == "markdown")
    return "\n\n".join([*prose, *filter(None, captions)])


def glossary():
    """The glossary as a list of pairs: the terms of an entry, its definition."""
    block = re.search(r"```\{glossary\}\n(.+?)\n```", text_of(BOOK / "glossary.md"), re.S)[1]
    entries = []
    for paragraph in re.split(r"\n\n(?=\S)", block):
        lines = paragraph.splitlines()
        terms = [line for line in lines if line and not line.startswith(" ")]
        entries.append((terms, "\n".join(lines[len(terms) :])))
    return entries


def terms_in_the_glossary():
    return [term for terms, _ in glossary() for term in terms]


def linked_terms(text):
    """What the `{term}` roles of a text point to."""
    roles = re.findall(r"\{term\}`([^`]+)`", text)
    return [re.sub(r"(?s).*<(.+)>", r"\1", role).replace("\n", " ") for role in roles]


def cited_keys(text):
    roles = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
    return [key.strip() for role in roles for key in role.split(",")]


@pytest.fixture(params=ENTRIES.values(), ids=ENTRIES.keys())
def entry(request):
    return request.param


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(BOOK)))
def page(request):
    return request.param


def test_an_entry_says_who_wrote_what_when_and_where(entry):
    assert entry.persons["author"]
    for field in ("title", "year", VENUE[entry.type]):
        assert entry.fields.get(field), field


def test_an_entry_names_all_its_authors_unless_they_are_many(entry):
    authors = [str(person) for person in entry.persons["author"]]
    if "others" in authors:
        assert entry.key == "chollet2015" or authors.index("others") >= 12
    for person in entry.persons["author"]:
        assert str(person) == "others" or (person.first_names and person.last_names), person


def test_a_key_is_the_first_author_the_year_and_perhaps_a_word(entry):
    author, year = re.fullmatch(r"([a-z]+)(\d{4})[a-z]*", entry.key).groups()
    first = entry.persons["author"][0]
    names = "".join(first.prelast_names + first.last_names).casefold().replace("ø", "o")
    plain = re.sub("[^a-z]", "", unicodedata.normalize("NFKD", names))
    assert plain.startswith(author)
    assert year == entry.fields["year"]


def test_an_entry_has_a_link(entry):
    assert {"doi", "url", "eprint"} & set(entry.fields)


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ("doi", r"10\.\d{4,9}/[^\s{}\\]+"),
        ("url", r"https://[\w.-]+\.\w+(/[^\s{}\\]*)?"),
        ("eprint", r"\d{4}\.\d{4,5}"),
    ],
    ids=["doi", "url", "eprint"],
)
def test_links_are_well_formed(field, form):
    links = [entry.fields[field] for entry in ENTRIES.values() if field in entry.fields]
    assert len(links) > 5
    assert [link for link in links if not re.fullmatch(form, link)] == []


def test_a_preprint_names_its_number_and_links_to_it(entry):
    if "arXiv preprint" in entry.fields.get("journal", ""):
        number = re.fullmatch(r"arXiv preprint arXiv:(\d{4}\.\d{4,5})", entry.fields["journal"])[1]
        assert entry.fields["url"] == f"https://arxiv.org/abs/{number}"


def test_pages_are_ascending(entry):
    if "pages" in entry.fields:
        first, last = entry.fields["pages"].split("--")
        assert int(first) <= int(last)


def test_no_work_is_listed_twice():
    titles = Counter(
        re.sub("[^a-z]", "", entry.fields["title"].casefold()) for entry in ENTRIES.values()
    )
    links = Counter(
        entry.fields[field]
        for entry in ENTRIES.values()
        for field in ("doi", "url", "eprint")
        if field in entry.fields
    )
    assert [what for what, count in (titles + links).items() if count > 1] == []


def test_citations_lead_to_an_entry(page):
    assert [key for key in cited_keys(text_of(page)) if key not in ENTRIES] == []


def test_every_entry_is_cited():
    cited = {key for page in PAGES for key in cited_keys(text_of(page))}
    assert sorted(set(ENTRIES) - cited) == []


def test_linked_terms_are_in_the_glossary(page):
    known = {term.casefold() for term in terms_in_the_glossary()}  # as Sphinx compares them
    assert [term for term in linked_terms(text_of(page)) if term.casefold() not in known] == []


def test_the_glossary_defines_each_term_once():
    terms = Counter(term.casefold() for term in terms_in_the_glossary())
    assert [term for term, count in terms.items() if count > 1] == []


def test_the_glossary_is_in_alphabetical_order():
    first = [re.sub("[^a-z]", "", terms[0].casefold().replace("é", "e")) for terms, _ in glossary()]
    assert first == sorted(first)


def test_a_definition_is_made_of_sentences_and_links_to_other_terms():
    for terms, definition in glossary():
        assert len(definition.split()) >= 8, terms
        assert definition.strip().endswith("."), terms
        assert linked_terms(definition), terms
        assert not set(terms) & set(linked_terms(definition)), terms


def test_the_notation_names_what_the_code_has():
    code = {path.stem: path.read_text("utf-8") for path in BOOK.parent.glob("vae_utils/*.py")}
    code |= {"vae": code["models"], "digits": code["data"]}
    names = re.findall(rf"\b({'|'.join(code)})\.(\w+)", text_of(BOOK / "notation.md"))
    assert len(names) > 10
    for owner, name in names:
        form = rf"def {name}\(|self\.{name} = |^    {name}: "
        assert re.search(form, code[owner], re.M), f"{owner}.{name}"


def symbols(equations):
    """Letters of formulas, Greek and accented ones too; no words, and not e."""
    plain = re.sub(
        r"\\(text|operatorname|mathrm|begin|end)\s*\{[^}]*\}|\\\\\[.*?\]", " ", equations
    )
    marked = r"\\(?:mathcal|mathbb|hat|tilde)\s*\{?[A-Za-z]"
    found = re.findall(rf"{marked}|\\[A-Za-z]+|[A-Za-z]", plain)
    wanted = {re.sub(r"[\s{]", "", symbol) for symbol in found}
    return {s for s in wanted if re.fullmatch(rf"{GREEK}|\\(math|hat|tilde)\w+|[A-Za-df-z]", s)}


def test_the_notation_has_every_symbol_of_the_equations(page):
    general, special = text_of(BOOK / "notation.md").split("## Symbols of one page")
    name = page.relative_to(BOOK).with_suffix("")
    rows = [row for row in special.splitlines() if f"{{doc}}`/book/{name}`" in row]
    explained = "\n".join(re.findall(r"\$(.+?)\$", "\n".join([general, *rows])))
    equations = re.findall(r"\$\$(.+?)\$\$", text_of(page), re.S)
    assert sorted(symbols("\n".join(equations)) - symbols(explained)) == []
