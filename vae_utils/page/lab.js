"use strict";
/* The lab: a VAE that learns in a worker, its controls, its state in the page's address.
 *
 * `LatentLab.start(name, payload)` brings the element with data-lab="name" to life. Its property
 * `lab.state` is a copy of what is shown, for tests: the settings, whether it runs, and the numbers
 * of the last snapshot.
 */
globalThis.LatentLab = (() => {
  const { unpack } = LatentNetworks;
  const { MOST_POINTS, REACH, pointsOf, pointsText } = LatentSettings;
  const { accept, defaults, read, write } = LatentAddress;
  const { dataChart, pieces, readable, words } = LatentViews;
  const { BROKEN, DATA, TASKS } = LatentLessons;
  const { themeOf, watch } = LatentPage;

  const PACES = { slow: { line: 3, digits: 3 }, watch: { line: 300, digits: 120 } };  // steps a second
  const BETWEEN = 80, MOST = 200;  // milliseconds at least from a few steps to the next; how many at most
  const AT_ONCE = 1000;  // steps of a run without animation
  const MOST_ENTRIES = 600;  // of the history; then every second one goes
  const WORDS_WAIT = 4000, SETTLED = 300;  // milliseconds
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
  const STRIDE = 0.1, BIG_STRIDE = 0.5;
  const FIRST_POINTS = "-1.5,-1;-1.2,-0.6;-0.8,-0.1;-0.3,0.2;0.3,0.2;0.8,-0.1;1.2,-0.6;1.5,-1";

  /** The means over points of a snapshot's truth, without its arrays. */
  const meansOf = ({ logLikelihood, elbo, gap, family, encoder }) => ({ logLikelihood, elbo, gap, family, encoder });

  async function unpackDigits({ levels, labels, white, train }) {
    const [grey, names] = await Promise.all([unpack(levels, Uint8Array), unpack(labels, Uint8Array)]);
    return { levels: grey, white, train, heldOutLabels: names.subarray(train) };
  }

  async function liven(root, payload) {
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const field = (name) => root.querySelector(`[data-setting="${name}"]`);
    const inBook = !document.body.dataset.jpThemeLight;  // a notebook's address is not ours
    const sets = { "8x8": await unpackDigits(payload.digits) };
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    const state = { settings: null, snapshot: null, history: [], data: null, running: false, paced: false, stop: Infinity, diverged: false };
    let worker = null, sent = new Set(), theme, todo = [], speaking = 0, linking = 0, sentAt = 0, pacing = 0, eager = false, patient = false, beginnings = 0, told = "";

    // The worker

    function employ() {
      const address = URL.createObjectURL(new Blob([payload.worker], { type: "text/javascript" }));
      worker = new Worker(address);
      URL.revokeObjectURL(address);
      sent = new Set();
      worker.onmessage = ({ data }) => hear(data);
      worker.onerror = (event) => say(`The training has stopped: ${event.message}.`);
    }

    function dismiss() {
      worker?.terminate();
      worker = null;
      rest();
    }

    const post = (message) => worker?.postMessage(message);

    function hear(message) {
      if (message.type === "snapshot") {
        if (message.data) state.data = message.data;
        if (!state.data || message.view !== state.settings.view) return;  // of the model before this one
        remember(message);
        if (message.data && eager) run();
        if (state.paced && message.step === state.stop) rest();
        if (state.paced) later(BETWEEN - (performance.now() - sentAt));
        state.running = message.running || state.paced;
        show();
      } else if (message.type === "diverged") {
        rest();
        state.diverged = true;
        tellDiverged(message.step);
      } else say(`${message.message}.`);
    }

    function remember(snapshot) {
      state.snapshot = snapshot;
      const { step, train, heldOut, truth } = snapshot, last = state.history.at(-1);
      if (last && step <= last.step) state.history.pop();
      if (last && step < last.step) state.history = [];
      state.history.push({ step, train, heldOut, truth: truth && meansOf(truth) });
      if (state.history.length > MOST_ENTRIES) state.history = state.history.filter((_, i, all) => i % 2 === 0 || i === all.length - 1);
    }

    /** Begin anew, with new weights, at step 0. */
    async function begin() {
      const { view, data } = state.settings, turn = ++beginnings;
      rest();
      todo = todo.length ? [showProgress] : [];  // of this view; the frame that was asked for comes
      Object.assign(state, { snapshot: null, history: [], data: null, diverged: false });
      const digits = view === "digits" ? await digitsOf(data) : null;
      if (turn !== beginnings) return;  // it began again meanwhile
      state.digits = digits;
      const { settings } = state;
      if (!worker) employ();
      showSettings();
      if (data === "own" && !settings.points) return say("Place at least one point: press in the plane, or move the ring with the arrow keys and press Enter.");
      const wanted = learned(settings), fresh = state.digits && !sent.has(data);
      if (fresh) sent.add(data);
      const { levels, white, train } = state.digits ?? {};
      post({ type: "start", settings: wanted, ...(fresh && { digits: { levels, white, train } }) });
      ask();
    }

    /** Tell the worker which point to look at, which dimensions, and whether to split the gap. */
    function ask() {
      const { view, at, split, latent, dimensions } = state.settings;
      const place = at ? at.split(",").map(Number).slice(state.settings.data === "line" ? -1 : -2) : null;
      if (view === "line") post({ type: "look", at: place, split: split === "yes" });
      else if (latent > 1) post({ type: "look", dimensions: dimensions.split(",").map((each) => each - 1) });
    }

    async function digitsOf(name) {
      if (!sets[name]) sets[name] = await unpackDigits(await payloadOnDemand());
      return sets[name];
    }

    /** The larger digits lie in a file of their own; where there is no site, in the output itself. */
    function payloadOnDemand() {
      const place = root.parentElement.querySelector('script[data-defines="LatentLabDigits"]');
      return new Promise((done, fail) => {
        const script = document.createElement("script");
        if (place.dataset.src) script.src = place.dataset.src;
        else script.textContent = place.textContent;
        script.onload = () => done(globalThis.LatentLabDigits);
        script.onerror = () => fail(new Error("the file of the larger digits is missing"));
        document.head.append(script);
        if (!place.dataset.src) done(globalThis.LatentLabDigits);
      });
    }

    const learned = (settings) => Object.fromEntries(
      Object.keys(LatentSettings.defaults(settings.view)).map((name) => [name, settings[name]]));
    const placeOf = ({ view, at }) => (view === "line" && at ? at.split(",").map(Number) : null);

    // What is shown

    /** Draw everything anew, a piece in a frame: what waits already keeps its place. */
    function show() {
      if (!state.snapshot) return;
      if (!todo.length) requestAnimationFrame(frame);
      todo = [...new Set([...todo, showProgress, ...pieces(state.settings.view)])];
    }

    function frame() {
      const piece = todo.shift();
      if (todo.length) requestAnimationFrame(frame);
      if (!root.isConnected || !state.snapshot || (piece !== showProgress && state.running && still.matches)) return;
      piece(part, { ...state, theme, colors: payload.colors, at: placeOf(state.settings) ?? state.snapshot.look?.at });
    }

    function showProgress() {
      const { snapshot, running } = state;
      part("clock").textContent = `step ${snapshot.step.toLocaleString("en")} · epoch ${readable(snapshot.epoch)}`;
      part("run").textContent = running ? "Pause" : still.matches && !state.settings.until ? `Run ${AT_ONCE} steps` : "Run";
      part("step").disabled = running;
      if (running && still.matches) return;
      showCard();
      showTaskNumbers();
      if (!running && patient) clearTimeout(speaking);  // it has come to rest: say so at once
      if (!speaking || (!running && patient)) speaking = setTimeout(speak, running ? WORDS_WAIT : SETTLED);
      patient = running;
    }

    function speak() {
      speaking = 0;
      if (!state.snapshot || !root.isConnected) return;
      const { snapshot, running } = state;
      part("words").textContent = `Step ${snapshot.step.toLocaleString("en")}, ${running ? "learning" : "paused"}. ${words(state)}`;
    }

    function showSettings() {
      const { settings } = state, { view } = settings;
      root.dataset.view = view;
      for (const each of ["line", "digits"]) part(each).setAttribute("aria-pressed", each === view);
      options(field("data"), LatentSettings.CHOICES.data[view].filter((name) => name !== "28x28" || payload.larger), DATA);
      options(field("broken"), LatentSettings.CHOICES.broken[view], Object.fromEntries(Object.entries(BROKEN).map(([name, card]) => [name, card.name])));
      for (const control of root.querySelectorAll("[data-setting]")) {
        const name = control.dataset.setting;
        if (!(name in settings)) continue;
        control.value = settings[name];
        const limits = LatentSettings.LIMITS[name];
        if (limits) [control.min, control.max] = limits;
      }
      part("beta").value = Math.cbrt(settings.beta / LatentSettings.LIMITS.beta[1]);
      part("beta").setAttribute("aria-valuetext", `β = ${settings.beta}`);
      part("speed").value = settings.speed;
      part("own").hidden = settings.data !== "own";
      part("per").textContent = view === "line" ? "per point" : "per image, summed over pixels";
      if (view === "line") {
        part("split").checked = settings.split === "yes";
        for (const row of root.querySelectorAll(".of-split")) row.classList.toggle("wanted", settings.split === "yes");
      } else {
        const names = Array.from({ length: settings.latent }, (_, i) => String(i + 1)), named = Object.fromEntries(names.map((n) => [n, `z${n}`]));
        for (const [i, name] of ["across", "up"].entries()) {
          options(part(name), names, named);
          part(name).value = settings.dimensions.split(",")[i];
        }
        part("dimensions").hidden = settings.latent < 3;
      }
      showCard();
      showCode();
    }

    /** Fill a list to choose from, if it holds anything else. */
    function options(select, values, names) {
      if (Array.from(select.options, ({ value }) => value).join() === values.join()) return;
      select.replaceChildren(...values.map((value) => new Option(names[value], value)));
    }

    function showCard() {
      const { settings, snapshot } = state, card = BROKEN[settings.broken];
      const symptom = snapshot && card.symptom ? ` Now: ${card.symptom(snapshot, readable)}.` : "";
      const text = `${card.text}${symptom}`;
      if (part("card").textContent !== text) part("card").textContent = text;
      part("mend").hidden = settings.broken === "none";
    }

    /** The program for these settings, with as many epochs as have been learned here. */
    function showCode() {
      const open = part("keras").getAttribute("aria-expanded") === "true";
      if (open) part("code").textContent = LatentKeras.code(state.settings, state.snapshot?.epoch || LatentKeras.EPOCHS);
      for (const name of ["code", "copy"]) part(name).hidden = !open;
    }

    /** Tell something, with a button for the way back; an empty text takes the last away. */
    function say(text, name, act) {
      told = text;
      part("message").replaceChildren(text);
      if (!name) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        say("");
        act();
      });
      part("message").append(button);
    }

    function tellDiverged(step) {
      const { broken, view } = state.settings, healthy = { broken: "none", rate: defaults(view).rate, beta: 1 };
      part("run").textContent = "Run";
      const cause = broken === "none" ? "the steps are too long for this network" : `with the setting “${BROKEN[broken].name}” nothing holds the numbers`;
      say(`The training has diverged at step ${step.toLocaleString("en")}: the loss is no longer a finite number, ${cause}.`,
          `Mend it: learning rate ${healthy.rate}, β = 1, nothing broken`, () => choose(healthy));
      part("words").textContent = `Diverged at step ${step}.`;
    }

    // What happens

    /** Take over new settings, all valid; what the worker cannot change while it runs starts anew. */
    function choose(news) {
      const before = state.settings, settings = { ...before, ...news };
      if (settings.view === "digits" && settings.dimensions.split(",").some((each) => each > Math.max(settings.latent, 2))) settings.dimensions = "1,2";
      if (settings.data === "own" && before.data !== "own" && !settings.points) settings.points = FIRST_POINTS;
      state.settings = settings;
      link();
      const changed = Object.keys(learned(settings)).filter((name) => settings[name] !== before[name]);
      const live = state.snapshot && !state.diverged && changed.every((name) => LatentSettings.LIVE.includes(name));
      if (changed.length && !live) {
        say("");
        return begin();
      }
      if (changed.length) post({ type: "change", settings: Object.fromEntries(changed.map((name) => [name, settings[name]])) });
      showSettings();
      return null;
    }

    function link() {
      clearTimeout(linking);
      if (inBook) linking = setTimeout(() => history.replaceState(null, "", `#${write(state.settings)}`), SETTLED);
    }

    function look(news) {
      state.settings = { ...state.settings, ...news };
      link();
      showSettings();
      ask();
    }

    /** Restore what stands in the address; say what of it cannot be had. */
    function restore(text) {
      const { settings, complaints } = read(text, payload.view);
      if (settings.data === "28x28" && !payload.larger) {
        settings.data = "8x8";
        complaints.push("This lab has no digits of 28 × 28. Received: data=28x28. Now it is 8x8");
      }
      state.settings = settings;
      say(complaints.map((complaint) => `${complaint}.`).join(" "));
      return begin();
    }

    /** Let it learn at the pace that was chosen: a few steps at a time, or as fast as it can. */
    function run() {
      if (state.running) {
        rest();
        return post({ type: "pause" });
      }
      if (!worker || state.diverged) {
        eager = true;
        return begin();
      }
      if (!state.snapshot) return null;
      eager = false;
      const { step } = state.snapshot, { until, speed } = state.settings;
      state.running = true;
      state.stop = until > step ? until : still.matches ? step + AT_ONCE : Infinity;
      if (still.matches) {
        part("run").textContent = "Pause";
        part("clock").textContent = "learning …";
      }
      state.paced = speed in PACES && !still.matches;
      sentAt = performance.now() - BETWEEN;
      if (state.paced) return pace();
      return post(Number.isFinite(state.stop) ? { type: "steps", count: state.stop - step } : { type: "run" });
    }

    function later(milliseconds) {
      clearTimeout(pacing);
      pacing = setTimeout(pace, milliseconds);
    }

    function pace() {
      const now = performance.now(), { speed, view } = state.settings, each = 1000 / PACES[speed][view];
      const count = Math.round((now - sentAt) / each);
      if (count < 1) return later(each - (now - sentAt));
      sentAt = now;
      return post({ type: "steps", count: Math.min(count, MOST, state.stop - state.snapshot.step) });
    }

    function rest() {
      clearTimeout(pacing);
      state.running = state.paced = false;
    }

    part("run").addEventListener("click", run);
    part("step").addEventListener("click", () => {
      const ready = !worker || state.diverged ? begin() : Promise.resolve();
      ready.then(() => post({ type: "steps", count: 1 }));
    });
    part("again").addEventListener("click", () => {
      say("");
      begin();
    });
    for (const view of ["line", "digits"]) part(view).addEventListener("click", () => {
      if (view === state.settings.view) return;
      state.settings = defaults(view);
      link();
      say("");
      begin();
    });
    part("speed").addEventListener("change", ({ target }) => {
      const was = state.running;
      if (was) run();
      choose({ speed: target.value });
      if (was) run();
    });
    for (const control of root.querySelectorAll("[data-setting]")) control.addEventListener("change", () => {
      const name = control.dataset.setting, { value, complaint } = accept(state.settings, name, control.value);
      control.value = value;
      const begun = choose({ [name]: value });
      if (complaint) Promise.resolve(begun).then(() => say(`${complaint}.`));
      else if (!begun && told) say("");
    });
    part("beta").addEventListener("input", ({ target }) => {
      const beta = LatentSettings.LIMITS.beta[1] * target.value ** 3;
      choose({ beta: Number(beta.toPrecision(2)) });
    });
    part("mend").addEventListener("click", () => {
      state.settings = { ...state.settings, broken: "none" };
      link();
      say("");
      begin();
    });
    part("split").addEventListener("change", ({ target }) => look({ split: target.checked ? "yes" : "no" }));
    for (const name of ["across", "up"]) part(name).addEventListener("change", () => {
      const [a, b] = ["across", "up"].map((each) => part(each).value);
      const [oldA, oldB] = state.settings.dimensions.split(",");
      look({ dimensions: (a === b ? [oldB, oldA] : [a, b]).join() });  // one chosen twice: they change places
    });
    part("link").addEventListener("click", () => copy(`${location.href.split("#")[0]}#${write(state.settings)}`, part("link")));
    part("copy").addEventListener("click", () => copy(part("code").textContent, part("copy")));
    part("keras").addEventListener("click", () => {
      const open = part("keras").getAttribute("aria-expanded") === "false";
      part("keras").setAttribute("aria-expanded", open);
      showCode();
      if (open) copy(part("code").textContent, part("copy"));
    });

    /** Copy a text; where the browser does not let us, select it for the reader. */
    async function copy(text, button) {
      const name = button.dataset.name ?? button.textContent;
      button.dataset.name = name;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        say(button === part("link") ? text : "This browser does not let a page copy: select the code below.");
      }
      setTimeout(() => { button.textContent = name; }, 2000);
    }

    // Points of the line view

    const canvas = part("curve");
    const dim = () => state.data?.dim ?? 2;
    const limited = (value) => Math.min(Math.max(value, -REACH), REACH);
    const atOf = (point) => point.slice(-dim()).map((value) => Number(limited(value).toFixed(2))).join();

    function pointAt(event) {
      const box = canvas.getBoundingClientRect(), chart = dataChart(canvas, theme, dim(), false);
      return chart.point(event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop);
    }
    const ownPoints = () => pointsOf(state.settings.points);
    function add(point) {
      if (ownPoints().length >= MOST_POINTS) return say(`There is room for ${MOST_POINTS} points.`);
      const [x, y] = point.map(limited);
      return choose({ points: pointsText([...ownPoints(), [x, y]]), at: atOf([x, y]) });
    }
    function remove() {
      const at = placeOf(state.settings) ?? [0, 0], points = ownPoints();
      const distance = ([x, y]) => Math.hypot(x - at[0], y - at[1]);
      const nearest = points.reduce((best, point) => (distance(point) < distance(best) ? point : best), points[0]);
      choose({ points: pointsText(points.filter((point) => point !== nearest)) });
    }

    let hovering = false;
    canvas.addEventListener("pointermove", (event) => {
      if (hovering || state.settings.view !== "line" || !state.snapshot) return;
      hovering = true;
      requestAnimationFrame(() => {
        hovering = false;
        look({ at: atOf(pointAt(event)) });
      });
    });
    canvas.addEventListener("click", (event) => {
      const point = pointAt(event);
      if (state.settings.data === "own") add(point);
      else look({ at: atOf(point) });
    });
    canvas.addEventListener("keydown", (event) => {
      const direction = ARROWS[event.key], at = placeOf(state.settings) ?? [0, 0].slice(-dim()), own = state.settings.data === "own";
      if (direction) {
        const step = event.shiftKey ? BIG_STRIDE : STRIDE;
        look({ at: atOf(at.map((value, i) => value + step * direction.slice(-at.length)[i])) });
      } else if (own && event.key === "Enter") add(at);
      else if (own && event.key === "Delete") remove();
      else return;
      event.preventDefault();
    });
    part("add").addEventListener("click", () => add(placeOf(state.settings) ?? [0, 0]));
    part("remove").addEventListener("click", remove);
    part("clear").addEventListener("click", () => choose({ points: "" }));

    // Tasks

    const numbersOfTasks = [];
    part("tasks").append(heading("Predict, then run"), ...TASKS.map((task, i) => {
      const number = document.createElement("strong");
      numbersOfTasks.push(() => {
        const now = state.snapshot && task.settings.view === state.settings.view ? task.number(state.snapshot, readable) : "not in this view";
        if (number.textContent !== now) number.textContent = now;
      });
      const set = element("a", "Set the controls");
      set.href = `#${write({ ...defaults(task.settings.view), ...task.settings })}`;
      set.addEventListener("click", (event) => {
        event.preventDefault();
        if (inBook) history.replaceState(null, "", set.getAttribute("href"));
        restore(set.getAttribute("href").slice(1));
        root.scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
        part("run").focus({ preventScroll: true });
      });
      const check = element("p", `${task.where}: `);
      check.append(number);
      const answer = element("details", "");
      answer.append(element("summary", "Answer"), element("p", task.answer));
      const all = element("details", "");
      all.append(element("summary", `${i + 1}. ${task.title}`), element("p", task.question), set, check, answer);
      return all;
    }));

    function element(kind, text) {
      const made = document.createElement(kind);
      made.textContent = text;
      return made;
    }
    function heading(text) {
      const made = element("p", text);
      made.className = "name";
      return made;
    }
    function showTaskNumbers() {
      for (const renew of numbersOfTasks) renew();
    }

    root.addEventListener("keydown", (event) => {  // or a notebook would take it for a command
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });

    // Beginning and end

    function restyle() {
      if (!root.isConnected) return;
      theme = themeOf(canvas, part("beta"));
      show();
    }

    root.classList.add("alive");
    root.lab = { dismiss, restore, restyle, get state() {
      const { settings, snapshot, running, history: entries } = state;
      const { step, epoch, train, heldOut, truth, stepsPerSecond, seconds } = snapshot ?? {};
      const exact = truth && { ...meansOf(truth), sigma: truth.sigma };
      return { settings, running, entries: entries.length, step, epoch, train, heldOut, truth: exact, stepsPerSecond, seconds, working: Boolean(worker),
               activity: snapshot && Array.from(snapshot.activity), look: snapshot?.look && { at: snapshot.look.at, mean: snapshot.look.mean, sigma: snapshot.look.sigma } };
    } };
    part("link").hidden = !inBook;
    watch(root, restyleAgain);
    leave(root);
    new ResizeObserver(restyle).observe(part("message").parentElement);
    restyle();
    await restore(inBook && location.hash.startsWith("#lab=") ? location.hash.slice(1) : `lab=${payload.view}`);
  }

  const restyleAgain = ({ lab }) => lab.restyle();  // out here it holds no lab

  /** Stop the worker once its output is gone: a notebook has put it away, or the page is closed. */
  function leave(root) {
    const reference = new WeakRef(root);
    const gone = new AbortController(), { signal } = gone;
    const changes = new MutationObserver(() => {
      const still = reference.deref();
      if (still?.isConnected) return;
      still?.lab.dismiss();
      if (still) return;
      changes.disconnect();
      gone.abort();
    });
    changes.observe(document.documentElement, { childList: true, subtree: true });
    addEventListener("pagehide", () => reference.deref()?.lab.dismiss(), { signal });
    addEventListener("hashchange", () => {
      const still = reference.deref();
      if (still?.isConnected && location.hash.startsWith("#lab=")) still.lab.restore(location.hash.slice(1));
    }, { signal });
  }

  const start = (name, payload) =>
    LatentPage.start("lab", name, { Worker: "Worker" in window }, (root) => liven(root, payload));

  return { start };
})();
