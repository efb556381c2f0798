// The panel of %taoprof: shows the widget's state, and sends what its buttons ask for. All texts are set as text.

const PAUSE = 2000; // ms between an answer and the next question; never less than a second
const PATIENCE = 4000; // ms without an answer, after which the kernel counts as busy
const SVG = "image/svg+xml";

// Escapes characters that show as something else or change the direction of the text after them, as masking.printable.
function printable(text) {
  const escape = (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`;
  return text.replace(/(?![ \u00a0\u3000])[\p{C}\p{Z}]/gu, escape);
}

function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  const nodes = children.flat().filter((child) => child !== null && child !== undefined && child !== "");
  node.append(...nodes.map((child) => (typeof child === "string" ? printable(child) : child)));
  return node;
}

function lines(texts, attributes) {
  return texts?.length ? h("div", { class: "lines", ...attributes }, texts.map((text) => h("div", {}, text))) : null;
}

function duration(seconds) {
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// One for each widget, however many views it has: the questions to the kernel.
class Questions {
  constructor(model) {
    this.model = model;
    this.views = new Set(); // those that can be seen now
    this.number = 0;
    this.waiting = new Set(); // the numbers of those without an answer
    this.timer = null;
    this.isLive = null;
    this.isClosed = false; // the kernel that had the panel has ended
    this.answered = null;
    model.on("msg:custom", (message) => this.take(message));
    model.on("comm_live_update", () => this.ask("refresh"));
  }

  show(view, isVisible) {
    if (isVisible) this.views.add(view);
    else this.views.delete(view);
    clearTimeout(this.timer);
    if (this.views.size && !this.waiting.size) this.next(0);
  }

  next(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask("refresh"), pause);
  }

  ask(action, argument = "") {
    clearTimeout(this.timer);
    this.number += 1;
    try {
      this.model.send({ number: this.number, action, argument });
    } catch {
      this.isClosed = true;
      this.views.forEach((view) => view.drawHead());
      return;
    }
    this.waiting.add(this.number);
    this.timer = setTimeout(() => this.miss(action), PATIENCE);
  }

  // The first question may have come before the kernel's own thread for it was there. It is asked a second time, and
  // then no more: all of them wait in the kernel until the cell ends.
  miss(action) {
    if (action === "refresh" && this.isLive === null && this.waiting.size < 2) {
      this.ask(action);
      return;
    }
    this.isLive = false;
    this.views.forEach((view) => view.drawHead());
  }

  take(message) {
    if (!this.waiting.has(message.number)) return;
    for (const number of this.waiting) if (number <= message.number) this.waiting.delete(number);
    this.isLive = true;
    this.answered = new Date();
    this.views.forEach((view) => view.answer(message));
    if (this.views.size && !this.waiting.size) this.next(Math.max(PAUSE, 10_000 * message.seconds));
  }
}

class View {
  constructor(model, questions, root) {
    this.model = model;
    this.questions = questions;
    this.asking = null; // the key of the button whose question is shown
    this.message = null;
    this.drawn = {};
    this.parts = Object.fromEntries(
      ["head", "message", "profile", "map", "running", "file"].map((name) => [name, h("section", { class: name })]),
    );
    const { head, message, profile, map, running, file } = this.parts;
    message.setAttribute("aria-live", "polite");
    // Keys typed here are not commands of the notebook.
    this.node = h(
      "div",
      { class: "taoprof-panel", "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": "taoprofiles" },
      h("div", { class: "top" }, head, message),
      h("div", { class: "columns" }, h("div", {}, profile, map), h("div", {}, running, file)),
    );
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.asking !== null) this.confirm(null);
    });
    root.append(this.node);
    this.draw();
  }

  get state() {
    return this.model.get("state");
  }

  draw() {
    this.drawHead();
    this.drawProfile();
    this.drawMap();
    this.drawRunning();
    this.drawFile();
  }

  // Draws one part, if what it shows has changed; the focus stays where it is.
  part(name, shown, make) {
    const key = JSON.stringify([shown, this.asking]);
    if (this.drawn[name] === key) return;
    this.drawn[name] = key;
    const active = this.node.getRootNode().activeElement;
    const focused = this.parts[name].contains(active) ? active.dataset.key : null;
    this.parts[name].replaceChildren(...make().filter((child) => child !== null));
    const again = [...this.parts[name].querySelectorAll("[data-key]")];
    if (focused) (again.find((node) => node.dataset.key === focused) ?? again[0])?.focus();
  }

  // A button for a command. What takes something from somebody is asked first, in its place.
  button(text, action, argument, question = null) {
    const key = `${action} ${argument}`;
    const run = () => {
      this.asking = null;
      this.message = null;
      this.questions.ask(action, argument);
      this.draw();
      this.drawMessage();
    };
    if (question === null || this.asking !== key) {
      return h("button", { type: "button", "data-key": key, click: question ? () => this.confirm(key) : run }, text);
    }
    return h(
      "span",
      { class: "question", role: "group", "aria-label": question },
      h("span", {}, question),
      h("button", { type: "button", class: "yes", "data-key": `yes ${key}`, click: run }, text.replace("…", "")),
      h("button", { type: "button", "data-key": key, click: () => this.confirm(null) }, "No"),
    );
  }

  confirm(key) {
    const before = this.asking;
    this.asking = key;
    this.draw();
    const wanted = key ?? before; // "No" and the button itself have the same key
    [...this.node.querySelectorAll("[data-key]")].find((node) => node.dataset.key === wanted)?.focus();
  }

  answer(message) {
    if (message.lines.length) this.message = message;
    this.draw();
    this.drawMessage();
  }

  drawHead() {
    const { isLive, isClosed, answered } = this.questions;
    const { notebook } = this.state;
    const busy =
      "No answer from the kernel. While it runs a cell, this panel cannot be updated here: it updates when the cell ends.";
    const closed = "The kernel was restarted or has ended: run the cell again.";
    const live = isClosed ? closed : isLive === null ? "" : isLive ? `live, ${answered.toLocaleTimeString()}` : busy;
    this.part("head", notebook, () => [
      h(
        "div",
        { class: "title" },
        h("strong", {}, notebook ? `This notebook uses '${notebook.profile}'` : "This notebook uses no profile"),
        notebook &&
          h("span", { class: "muted" }, notebook.shared ? "through the shared mounts file" : `through ${notebook.file}`),
        notebook && this.button("Stop using it", "leave", ""),
        h("span", { class: "live", role: "status" }),
      ),
      lines(notebook?.warnings, { class: "lines warning" }),
    ]);
    const shown = this.parts.head.querySelector(".live");
    shown.textContent = live;
    shown.className = isClosed || isLive === false ? "live warning" : "live muted";
  }

  drawMessage() {
    const message = this.message;
    this.part("message", message, () => {
      if (!message) return [];
      const hasMissing = message.is_refused && message.lines.some((line) => line.includes("--mkdir"));
      return [
        h(
          "div",
          { class: message.is_refused ? "box error" : "box", role: message.is_refused ? "alert" : "status" },
          lines([(message.is_refused ? "refused: " : "") + message.lines[0], ...message.lines.slice(1)]),
          h(
            "div",
            { class: "buttons" },
            hasMissing && this.state.selected
              ? this.button("Create the folders and use it", "make", this.state.selected)
              : null,
            h("button", { type: "button", "data-key": "close", click: () => this.close() }, "Close"),
          ),
        ),
      ];
    });
  }

  close() {
    this.message = null;
    this.drawMessage();
    this.parts.profile.querySelector("select, button")?.focus();
  }

  drawProfile() {
    const { profiles, selected, problems, notebook } = this.state;
    this.part("profile", [profiles, selected, problems, notebook], () => {
      const names = profiles.profiles ?? [];
      if (!names.length) {
        return [h("h4", {}, "Profile"), lines(profiles.error ?? ["There are no profiles yet: !taoprof new NAME"])];
      }
      const options = names.map(({ name, active, valid }) => {
        const notes = [active && "mapping file", name === notebook?.profile && "this notebook", !valid && "not valid"];
        const note = notes.filter(Boolean).join(", ");
        return h("option", { value: name, selected: name === selected }, name + (note ? ` (${note})` : ""));
      });
      const chosen = names.find((profile) => profile.name === selected);
      const choose = (event) => this.questions.ask("select", event.target.value);
      return [
        h("h4", {}, "Profile"),
        h(
          "div",
          { class: "choice" },
          h("select", { "aria-label": "Profile", "data-key": "select", change: choose }, options),
          this.button(notebook?.profile === selected ? "Use it again" : "Use in this notebook", "use", selected),
        ),
        chosen?.description ? h("div", { class: "muted description" }, chosen.description) : null,
        problems.length ? h("div", { class: "box error" }, lines(problems)) : null,
      ];
    });
  }

  drawMap() {
    const { drawing } = this.state;
    this.part("map", drawing, () => {
      if (!drawing) return [];
      const root = new DOMParser().parseFromString(drawing, SVG).documentElement;
      return root.localName === "svg" ? [document.importNode(root, true)] : [];
    });
  }

  drawRunning() {
    const { status, ages, notebook } = this.state;
    this.part("running", [status, ages, notebook], () => {
      const holds = status.holds ?? [];
      const runs = Object.fromEntries((status.runs ?? []).map((run) => [run.id, run]));
      return [
        h("h4", {}, `Holds and runs${holds.length ? ` (${holds.length})` : ""}`),
        lines(status.error, { class: "lines error" }),
        holds.length
          ? h("ul", {}, holds.map((hold) => this.hold(hold, runs[hold.id], ages[hold.id], notebook?.hold)))
          : h("div", { class: "muted" }, "Nothing is running or held."),
        lines(status.unseen, { class: "lines warning" }),
        status.queue?.length ? h("h4", {}, "Waiting, in this order") : null,
        status.queue?.length ? h("ul", {}, status.queue.map((waiting) => this.waiting(waiting))) : null,
      ];
    });
  }

  waiting(waiting) {
    const what = waiting.command.join(" ").slice(0, 300);
    return h(
      "li",
      {},
      h("strong", {}, waiting.profile ? `'${waiting.profile}'` : "no profile"),
      h("div", { class: "command" }, what),
      h("div", { class: "muted" }, `waits for ${waiting.waits_for.join(", ")} · pid ${waiting.pid}`),
    );
  }

  hold(hold, { progress, last_line: line } = {}, age, own) {
    const what = (hold.command.length ? hold.command : [hold.reason || hold.kind]).join(" ").slice(0, 300);
    const name = hold.profile ? `'${hold.profile}'` : "";
    const phase = hold.kind === "manual" ? "" : hold.phase === "bound" ? "training" : "no container yet";
    const idle = hold.kind === "notebook" && hold.phase !== "bound" ? "nothing is training" : phase;
    const facts = [hold.kind, idle, `for ${age}`, hold.shared ? (hold.released ? "released" : "mapping file") : "own file"];
    if (hold.container) facts.push(`container ${hold.container.slice(0, 6)}`);
    if (hold.gpus?.length) facts.push(`GPUs ${[].concat(hold.gpus).join(", ")}`);
    facts.push(`${hold.user}@${hold.host}`, `hold ${hold.id}`);
    const isOwn = hold.id === own;
    const buttons = [];
    if (!["manual", "agent"].includes(hold.kind) && (!isOwn || hold.container)) {
      buttons.push(this.button("Stop…", "stop", hold.id, `Stop '${what.slice(0, 60)}'? Its training ends.`));
    }
    if (hold.shared && !hold.released && !isOwn) {
      const rest = hold.kind === "manual" ? "" : " Its work goes on, but the mapping file may change.";
      buttons.push(this.button("Release…", "release", hold.id, `Release hold ${hold.id}?${rest}`));
    }
    return h(
      "li",
      { class: hold.phase === "bound" ? "training" : "" },
      h("div", {}, h("strong", {}, name || hold.kind), isOwn ? h("span", { class: "muted" }, " this notebook") : null),
      h("div", { class: "command" }, what),
      progress ? this.progress(progress) : null,
      line ? h("div", { class: "command muted" }, line.slice(0, 300)) : null,
      h("div", { class: "muted" }, facts.filter(Boolean).join(" · ")),
      buttons.length ? h("div", { class: "buttons" }, buttons) : null,
    );
  }

  progress(progress) {
    const parts = progress.state === "running" ? [] : [progress.state];
    if (progress.epoch !== null) parts.push(`epoch ${progress.epoch}${progress.epochs === null ? "" : `/${progress.epochs}`}`);
    if (progress.seconds_left !== null) parts.push(`${duration(progress.seconds_left)} left`);
    for (const metric of progress.metrics.slice(-2)) {
      if (metric.value !== null) parts.push(`${metric.name} ${Number(metric.value.toPrecision(4))}`);
    }
    if (progress.message) parts.push(progress.message);
    const text = parts.join(", ");
    const bar = progress.share === null ? null : h("progress", { max: 1, value: progress.share, "aria-label": text });
    return h("div", { class: "reported" }, bar, h("div", {}, text));
  }

  drawFile() {
    const { file, guard, changes, status } = this.state;
    const previous = status.last ?? status.name;
    const what = previous ? `the mapping of '${previous}'` : "what was there before";
    const question = `Restore ${what} in the shared mounts file? What is there now stays in the history.`;
    this.part("file", [file, guard, changes], () => [
      h("h4", {}, "Shared mounts file"),
      h("div", {}, file),
      h("div", {}, `Guard: ${guard}`),
      changes.length ? h("h4", {}, "Changes by other programs") : null,
      changes.length
        ? h(
            "ul",
            {},
            changes.map((change) =>
              h(
                "li",
                {},
                h("div", {}, `${change.time}: ${change.what} ${change.by}`),
                change.action ? this.button("Restore…", change.action, change.argument, question) : null,
              ),
            ),
          )
        : null,
    ]);
  }
}

export default () => {
  let questions;
  return {
    initialize({ model }) {
      questions = new Questions(model);
    },
    render({ model, el }) {
      const view = new View(model, questions, el);
      const redraw = () => view.draw();
      model.on("change:state", redraw);
      let isInView = false;
      const update = () => questions.show(view, isInView && !document.hidden);
      const observer = new IntersectionObserver((entries) => {
        isInView = entries.at(-1).isIntersecting;
        update();
      });
      observer.observe(el);
      document.addEventListener("visibilitychange", update);
      return () => {
        observer.disconnect();
        document.removeEventListener("visibilitychange", update);
        model.off("change:state", redraw);
        questions.show(view, false);
      };
    },
  };
};
