// Shows predictions in a form for people. Whatever the server says becomes text, never markup.

/** Return a new element; `children` are nodes or texts. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value;
    else if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Return a node for an answer to `texts`; with several texts, the answer has `predictions`. */
export function shown(answer, texts) {
  if (!Array.isArray(answer.predictions)) {
    const { model, ...prediction } = answer;
    return element("div", {}, ...members(prediction, texts[0] ?? ""));
  }
  const all = answer.predictions.map((prediction, number) =>
    element(
      "section",
      { class: "answer-of" },
      element("p", { class: "asked" }, texts[number] ?? `text ${number + 1}`),
      ...members(prediction, texts[number] ?? ""),
    ),
  );
  const vectors = answer.predictions.map((prediction) => prediction.embedding);
  if (vectors.length > 1 && vectors.every(Array.isArray)) all.push(similarities(vectors));
  return element("div", {}, ...all);
}

/** Return nodes for the members of one prediction, those with a form of their own first. */
function members(prediction, text) {
  const rest = { ...prediction };
  const nodes = [];
  const take = (...names) => {
    const found = names.every((name) => name in rest);
    const values = names.map((name) => rest[name]);
    if (found) names.forEach((name) => delete rest[name]);
    return found ? values : null;
  };
  let values;
  if ((values = take("label", "score"))) {
    const [label, score] = values;
    const top = take("top")?.[0] ?? [{ label, score }];
    nodes.push(scores(top.map((each) => [each.label, each.score])));
  }
  if ((values = take("labels", "scores"))) {
    const [labels, numbers] = values;
    nodes.push(scores(labels.map((label, number) => [label, numbers[number]])));
  }
  if ((values = take("entities"))) nodes.push(...entities(values[0], text));
  if ((values = take("fills"))) nodes.push(table(values[0]));
  if ((values = take("embedding"))) nodes.push(vector(values[0]));
  // generated_text, summary_text, and what other tasks write.
  for (const name of Object.keys(rest).filter((each) => each.endsWith("_text") || each === "answer")) {
    nodes.push(element("p", { class: "written" }, plain(take(name)[0])));
  }
  if (Object.keys(rest).length) nodes.push(others(rest));
  return nodes;
}

function number(value) {
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(4) : String(value);
}

function plain(value) {
  if (typeof value === "string") return value;
  return typeof value === "number" ? number(value) : JSON.stringify(value);
}

/** Return rows of a label, a bar and a number; the first is the best. */
function scores(rows) {
  const list = element("dl", { class: "scores" });
  rows.forEach(([label, score], row) => {
    const kind = row === 0 ? "best" : "";
    // The score of a regression is no share of one.
    const share = typeof score === "number" && score >= 0 && score <= 1;
    const bar = share
      ? element("meter", { min: 0, max: 1, value: score, "aria-label": String(label) })
      : "";
    const shownScore = share ? `${(100 * score).toFixed(1)} %` : plain(score);
    list.append(
      element("dt", { class: kind }, String(label)),
      element("dd", { "aria-hidden": "true" }, bar),
      element("dd", { class: kind }, shownScore),
    );
  });
  return list;
}

/** Return the text with its entities marked, and a table of them; positions count code points. */
function entities(found, text) {
  if (!found.length) return [element("p", {}, "No entities.")];
  const letters = Array.from(text);
  const marked = element("p", { class: "written" });
  let position = 0;
  for (const { start, end } of [...found].sort((one, other) => one.start - other.start)) {
    if (!(start >= position)) continue;
    marked.append(letters.slice(position, start).join(""));
    marked.append(element("mark", {}, letters.slice(start, end).join("")));
    position = end;
  }
  marked.append(letters.slice(position).join(""));
  return [marked, table(found)];
}

/** Return a table of objects with the same members. */
function table(rows) {
  const names = Object.keys(rows[0] ?? {});
  const head = names.map((name) => element("th", { scope: "col" }, name.replaceAll("_", " ")));
  const body = rows.map((row) =>
    element("tr", {}, ...names.map((name) => element("td", {}, plain(row[name])))),
  );
  return wide(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

function wide(...parts) {
  const inner = element("table", {}, ...parts);
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, inner);
}

function length(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

function vector(values) {
  const first = values.slice(0, 8).map((value) => value.toFixed(3)).join(", ");
  const more = values.length > 8 ? ", …" : "";
  return element(
    "p",
    {},
    `${values.length} numbers of length ${length(values).toFixed(3)}: ${first}${more}`,
  );
}

/** Return a table of the cosines between vectors. */
function similarities(vectors) {
  const cosine = (one, other) =>
    one.reduce((sum, value, place) => sum + value * other[place], 0) / (length(one) * length(other));
  const head = vectors.map((_, column) => element("th", { scope: "col" }, `text ${column + 1}`));
  const rows = vectors.map((one, row) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, `text ${row + 1}`),
      ...vectors.map((other) => element("td", {}, cosine(one, other).toFixed(3))),
    ),
  );
  const caption = element("caption", {}, "Cosine similarity");
  return wide(
    caption,
    element("thead", {}, element("tr", {}, element("td"), ...head)),
    element("tbody", {}, ...rows),
  );
}

/** Return name and value of the members that have no form of their own. */
function others(members) {
  const list = element("dl", { class: "facts" });
  for (const [name, value] of Object.entries(members)) {
    list.append(element("div", {}, element("dt", {}, name), element("dd", {}, plain(value))));
  }
  return list;
}
