"use strict";
// Filters, orders and draws the rows of rows.html, a page of them at a time. What rows say becomes text, never markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { words, metrics, rows, systems, labels, first, others } = data;
  const form = $("filters");
  const controls = [...form.elements].filter((one) => one.name);
  const usual = new Map(controls.map((one) => [one.name, one.value]));
  let page = 0;

  const fill = (template, values) => template.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const fold = (text) => text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ").trim();
  const value = (name) => (form.elements[name] ? form.elements[name].value : "");
  const metric = () => metrics.findIndex((one) => one.key === value("metric"));
  const other = () => (value("with") ? systems.indexOf(value("with")) : first === null ? systems.length - 1 : others[0]);

  // Numbers as the report has them.
  function number(score, signed = false) {
    if (score === null || score === undefined) return "n/a";
    return (signed && score >= 0 ? "+" : "") + score.toFixed(Math.abs(score) < 10 ? 3 : 1);
  }

  function changeOf(row, at) {
    if (first === null || at === null) return null;
    const [before, after] = [first, other()].map((system) => row.answers[system].scores[at]);
    return before === null || after === null ? null : Math.round((after - before) * 1e6) / 1e6;
  }

  function outcomeOf(row) {
    const change = changeOf(row, data.decides);
    if (change === null) return "";
    return change > 0 ? "better" : change < 0 ? "worse" : "same";
  }

  // What is searched, folded when it is first asked for.
  function searched(row) {
    const texts = [row.title, row.called, row.question, row.earlier, data.contexts[row.context] ?? "", row.reference, row.remark];
    return (row.folded ??= fold([...texts, ...row.answers.flatMap((one) => [one.text, one.remark ?? ""])].join("\n")));
  }

  function chosen() {
    const wanted = fold(value("q")).split(" ").filter(Boolean);
    const same = (name, found) => !value(name) || value(name) === found;
    const found = rows.filter((row) =>
      same("group", row.group) && same("category", row.category) &&
      (!value("outcome") || value("outcome") === outcomeOf(row)) &&
      wanted.every((word) => searched(row).includes(word)));
    const order = value("order");
    if (!order) return found;
    const at = metric();
    const rank = (row) => (order === "fell" || order === "rose" ? changeOf(row, at) : row.answers[other()].scores[at]);
    const sign = order === "rose" || order === "highest" ? -1 : 1;
    // Rows without the number come last, whichever way the others stand.
    const keyed = found.map((row) => [rank(row), row]);
    keyed.sort(([a], [b]) => (a === null) - (b === null) || sign * (a - b));
    return keyed.map(([, row]) => row);
  }

  function make(tag, { text, ...attributes } = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, content] of Object.entries(attributes)) made.setAttribute(name, content);
    if (text !== undefined) made.textContent = text;
    made.append(...children);
    return made;
  }

  function marked(text, marks = []) {
    const parts = [];
    let at = 0;
    for (let i = 0; i < marks.length; i += 2) {
      parts.push(text.slice(at, marks[i]), make("mark", { text: text.slice(marks[i], marks[i + 1]) }));
      at = marks[i + 1];
    }
    return [...parts, text.slice(at)];
  }

  function quote(label, text, marks) {
    const said = text ? marked(text, marks) : [make("em", { text: words.empty, lang: document.documentElement.lang })];
    return make("div", { class: "quote" }, make("h3", { text: label }), make("div", { class: "text", lang: "ja" }, ...said));
  }

  function scores(row) {
    const made = (tag, texts, attributes) => texts.map((text) => make(tag, { text, ...attributes }));
    const header = [words.metric, ...labels, ...(first === null ? [] : [words.change])];
    const body = metrics.map((one, at) => {
      const cells = row.answers.map((answer) => number(answer.scores[at]));
      if (first !== null) cells.push(number(changeOf(row, at), true));
      const known = cells.some((cell) => cell !== "n/a");
      return known && make("tr", {}, make("th", { scope: "row", text: one.name }), ...made("td", cells));
    });
    const head = make("tr", {}, ...made("th", header, { scope: "col" }));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body.filter(Boolean)));
    return make("div", { class: "table", tabindex: "0" }, table);
  }

  function title(row) {
    const line = make("h2", { text: [row.title, row.called].filter(Boolean).join(" · ") });
    const outcome = outcomeOf(row);
    if (outcome) line.append(" ", make("span", { class: `outcome ${outcome}`, text: words.outcomes[outcome] }));
    const changes = outcome ? [number(changeOf(row, data.decides), true)] : [];
    const at = metric();
    const change = changeOf(row, at);
    if (at !== data.decides && change !== null) changes.push(`${metrics[at].name} ${number(change, true)}`);
    if (changes.length) line.append(" ", make("span", { class: "change", text: changes.join(" · ") }));
    return line;
  }

  function card(row) {
    const context = row.context === null ? [] : [quote(words.context, data.contexts[row.context], row.answers[other()].taken)];
    const at = metric();
    const answers = row.answers.map((one, system) => {
      const score = one.scores[at] ?? null;
      const known = [labels[system], ...(score === null ? [] : [number(score)]), words.finish[one.finish]];
      const answer = quote([...known, fill(words.tokens, one)].join(" · "), one.text, one.marks);
      return one.remark ? make("div", {}, answer, quote(words.judge, one.remark)) : answer;
    });
    const all = make("details", {}, make("summary", { text: words.scores }));
    all.addEventListener("toggle", () => all.open && all.children.length === 1 && all.append(scores(row)));
    return make("article", { class: "sample" }, title(row),
      ...(row.earlier ? [quote(words.earlier, row.earlier)] : []),
      quote(words.question, row.question), ...context, quote(words.reference, row.reference),
      make("div", { class: "answers" }, ...answers),
      ...(row.remark ? [quote(words.both, row.remark)] : []), all);
  }

  // Which filters are set, in words: for who hears the page, and on paper, where the form is not.
  function asked() {
    const set = controls.filter((one) => one.name !== "size" && one.value !== usual.get(one.name));
    return set.map((one) => `${one.labels[0].querySelector("span").textContent}: ${one.selectedOptions?.[0].text ?? one.value}`);
  }

  function draw() {
    const found = chosen();
    const size = Number(value("size"));
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(Math.max(0, page), pages - 1);
    const shown = found.slice(page * size, (page + 1) * size);
    $("rows").replaceChildren(...shown.map(card));
    const counts = { shown: found.length.toLocaleString("en"), total: rows.length.toLocaleString("en") };
    const part = { start: page * size + 1, end: page * size + shown.length };
    const count = fill(words.shown, counts) + (shown.length < found.length ? fill(words.part, part) : "");
    const filters = make("small", { text: asked().join(" · ") });
    $("status").replaceChildren(found.length ? count : `${count} · ${words.nothing}`, " ", filters);
    $("pager").hidden = pages === 1;
    $("page").textContent = `${page + 1} / ${pages}`;
    $("previous").disabled = page === 0;
    $("next").disabled = page === pages - 1;
    reach();
  }

  // What scrolls must be reached by keys. All are measured before one is changed: each change would lay out all again.
  function reach() {
    for (const box of [...$("rows").querySelectorAll(".text")].filter((one) => one.scrollHeight > one.clientHeight)) {
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", box.previousSibling.textContent);
    }
  }

  // The address holds what is asked, so that it can be sent.
  function write() {
    const asked = new URLSearchParams();
    for (const one of controls) if (one.value !== usual.get(one.name)) asked.set(one.name, one.value);
    if (page) asked.set("page", page + 1);
    history.replaceState(null, "", `#${asked}`);
  }

  function read() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const one of controls) {
      one.value = asked.get(one.name) ?? usual.get(one.name);
      if (one.selectedIndex === -1) one.value = usual.get(one.name); // an option that this page lacks
    }
    page = (parseInt(asked.get("page"), 10) || 1) - 1;
    draw();
  }

  function ask() {
    page = 0;
    draw();
    write();
  }

  function turn(step) {
    page += step;
    draw();
    write();
    $("status").focus({ preventScroll: true });
    $("status").scrollIntoView();
  }

  let waiting;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(ask, 150);
  });
  form.addEventListener("reset", () => setTimeout(ask));
  form.addEventListener("submit", (event) => event.preventDefault());
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  addEventListener("hashchange", read);
  addEventListener("resize", reach);
  read();
})();
