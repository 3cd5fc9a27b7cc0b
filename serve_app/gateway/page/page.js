// The page: follows the models, sends requests, and shows answers. All addresses are relative to the page's.

import { element, shown } from "./answers.js";
import { inputFields, isContent, parameterFields } from "./forms.js";

const PAUSE_MS = 2000;
const KEY = "#model=";

const part = (id) => document.getElementById(id);
const address = (path) => new URL(path, document.baseURI).href;
const path = (name) => `v2/models/${encodeURIComponent(name)}`;

let models = new Map();
let contract = null;
let chosen = null;
// Of the chosen model: what it says of itself, its fields, and the number of the latest request.
let metadata = {};
let inputs = [];
let parameters = [];
let shape = "";
let latest = 0;

/** Return the header with the key that was typed; it is kept nowhere. */
function keyHeader() {
  const key = part("key").value.trim();
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function json(where) {
  const response = await fetch(address(where), { headers: { accept: "application/json", ...keyHeader() } });
  if (response.status === 401) part("key-form").hidden = false;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? `${response.status}`);
  return answer;
}

/** Write a text only if it is another one, so that live regions do not repeat it. */
function say(id, sentence) {
  const node = part(id);
  if (node.textContent !== sentence) node.textContent = sentence;
}

/** Return a word for a model's state, its kind, and a sentence about what that means. */
function stateOf(model) {
  if (model.state === "RUNNING" && model.replicas > 0) return ["ready", "ready", ""];
  if (model.state === "RUNNING") {
    const sentence = "No replica runs. The first request starts one, and waits for it.";
    return ["at rest", "waiting", sentence];
  }
  const older = model.ready ? "The last version that worked answers." : "";
  const sentence = [model.reason, older].filter(Boolean).join(" · ");
  if (["DEPLOY_FAILED", "UNHEALTHY"].includes(model.state)) return ["failed", "failed", sentence];
  if (model.state === "DELETING") return ["being removed", "waiting", sentence];
  return [model.ready ? "updating" : "loading", "waiting", sentence];
}

function listModels() {
  const current = new Map([...part("models").children].map((item) => [item.dataset.name, item]));
  for (const [name, item] of current) if (!models.has(name)) item.remove();
  [...models.values()].forEach((model, place) => {
    const item = current.get(model.name) ?? newItem(model.name);
    const [word, kind] = stateOf(model);
    const [, task, state] = item.querySelectorAll("span");
    if (task.textContent !== model.task) task.textContent = model.task;
    if (state.textContent !== word) state.textContent = word;
    state.className = kind;
    const link = item.firstChild;
    if (model.name === chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    // A node that is put where it is already would lose the focus.
    if (part("models").children[place] !== item) part("models").insertBefore(item, part("models").children[place]);
  });
  part("none").hidden = models.size > 0;
}

function newItem(name) {
  const item = element("li");
  item.dataset.name = name;
  const spans = [element("span", { class: "model" }, name), element("span"), element("span")];
  item.append(element("a", { href: KEY + encodeURIComponent(name) }, ...spans));
  return item;
}

function nameInAddress() {
  return location.hash.startsWith(KEY) ? decodeURIComponent(location.hash.slice(KEY.length)) : null;
}

function firstModel() {
  const all = [...models.values()];
  return (all.find((model) => model.replicas > 0) ?? all[0])?.name ?? null;
}

async function choose(name) {
  if (name === chosen) return;
  chosen = name;
  metadata = {};
  shape = "";
  latest += 1;
  clearAnswer();
  part("chosen").hidden = !models.has(name);
  part("choose").hidden = models.has(name);
  listModels();
  showChosen();
  await describe();
}

/** Ask the chosen model for its inputs; one at rest, or that does not answer, does not say them. */
async function describe() {
  const name = chosen;
  if (!models.get(name)?.replicas) return;
  try {
    const found = await json(path(name));
    if (name === chosen) metadata = found;
  } catch {
    return;
  }
  showChosen();
}

function showChosen() {
  const model = models.get(chosen);
  if (!model) return;
  say("name", model.name);
  const [word, kind, sentence] = stateOf(model);
  say("state", sentence ? `${word}: ${sentence}` : word);
  part("state").className = kind;
  showFacts(model);
  // One at rest has not said what it takes.
  const names = (metadata.inputs ?? [{ name: "text" }]).map((input) => input.name);
  const wanted = JSON.stringify([model.task, names]);
  if (wanted !== shape) {
    shape = wanted;
    buildForm(model.task, names);
  }
  showCommand();
}

function showFacts(model) {
  const said = metadata.parameters ?? {};
  const facts = {
    task: model.task,
    model: said.uri,
    dtype: said.dtype,
    "tokens of a text": said.max_input_tokens,
  };
  const known = Object.entries(facts).filter(([, value]) => value);
  part("facts").replaceChildren(
    ...known.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, String(value))),
    ),
  );
}

/** Build the fields; what was typed into fields of the same names stays, and so does the focus. */
function buildForm(task, names) {
  const focused = document.activeElement?.id;
  const typed = new Map([...inputs, ...parameters].map((field) => [field.name, field.control.value]));
  const reference = contract["x-tasks"][task]?.parameters.$ref;
  const schema = reference ? contract.components.schemas[reference.split("/").at(-1)] : {};
  inputs = inputFields(names);
  parameters = parameterFields(schema);
  for (const field of [...inputs, ...parameters]) field.control.value = typed.get(field.name) ?? "";
  const settings = parameters.filter((field) => !isContent(field));
  part("inputs").replaceChildren(...inputs.map((field) => field.node), severalTexts());
  part("lists").replaceChildren(...parameters.filter(isContent).map((field) => field.node));
  part("parameters").replaceChildren(...settings.map((field) => field.node));
  part("settings").hidden = !settings.length;
  if (focused && document.activeElement === document.body) part(focused)?.focus();
}

/** Whether one text goes with many others: a query with texts, and not a text with what may stand beside it. */
function isOneToMany() {
  return inputs.length > 1 && inputs[0].name !== "text";
}

function severalTexts() {
  const box = element("input", { type: "checkbox", id: "several" });
  const of = inputs.length > 1 ? ` of ${inputs[isOneToMany() ? 1 : 0].name}` : "";
  const label = element("label", { for: "several" }, `Each line${of} is a text of its own`);
  return element("p", { class: "choice" }, box, " ", label);
}

/** Return the body of the request and its texts; throws an Error for a value that may not be sent. */
function request() {
  const [first, ...others] = inputs.filter((field, place) => place === 0 || field.read().trim());
  const beside = Object.fromEntries(others.map((field) => [field.name, field.read()]));
  let body = { [first.name]: first.read(), ...beside };
  let texts = [Object.values(body).join("\n")];
  if (part("several").checked) {
    const lines = (field) => field.read().split("\n").filter((line) => line.trim());
    texts = lines(isOneToMany() ? inputs[1] : first);
    if (isOneToMany()) body = { [first.name]: first.read(), texts };
    else body = { texts: others.length ? texts.map((text) => ({ text, ...beside })) : texts };
  }
  const stated = parameters.map((field) => [field.name, field.read()]).filter(([, value]) => value !== undefined);
  if (stated.length) body.parameters = Object.fromEntries(stated);
  return { body, texts };
}

/** Return the first field with a mistake, after telling each field what is wrong with it. */
function checked() {
  let first = null;
  const note = (field, sentence) => {
    field.complain(sentence);
    if (sentence) first ??= field;
  };
  // Whether another one may be left out, the server says.
  inputs.forEach((field, place) => note(field, place > 0 || field.read().trim() ? "" : `Write the ${field.name} here.`));
  for (const field of parameters) {
    try {
      field.read();
      note(field, "");
    } catch (error) {
      note(field, error.message);
    }
  }
  return first;
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function showCommand() {
  let body;
  try {
    body = JSON.stringify(request().body);
  } catch {
    // A parameter is wrong; the command that was right last stays until it is mended.
    return;
  }
  const url = address(`${path(chosen)}/predict`);
  const key = part("key").value.trim() ? ` \\\n  -H "authorization: Bearer $KEY"` : "";
  say("command", `curl -s ${quoted(url)}${key} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(body)}`);
  say("copied", "");
}

function clearAnswer() {
  for (const id of ["progress", "failure"]) say(id, "");
  part("answer").replaceChildren();
  part("raw-details").hidden = true;
}

async function send() {
  const mistaken = checked();
  if (mistaken) {
    mistaken.control.closest("details")?.setAttribute("open", "");
    mistaken.control.focus();
    return;
  }
  if (part("send").getAttribute("aria-disabled") === "true") return;
  const { body, texts } = request();
  const number = (latest += 1);
  clearAnswer();
  part("send").setAttribute("aria-disabled", "true");
  say("progress", "Waiting for the answer …");
  const started = performance.now();
  try {
    const response = await fetch(address(`${path(chosen)}/predict`), {
      method: "POST",
      headers: { "content-type": "application/json", ...keyHeader() },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (number === latest) showAnswer(response, text, texts, performance.now() - started);
  } catch (error) {
    if (number === latest) showFailure(`The server does not answer: ${error.message}`, "");
  } finally {
    part("send").removeAttribute("aria-disabled");
  }
  if (!metadata.inputs) await describe();
}

function showAnswer(response, text, texts, milliseconds) {
  const time = `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    return showFailure(`${response.status}: no JSON came back`, text);
  }
  if (!response.ok) return showFailure(`${response.status}: ${answer.error ?? "no cause was given"} (${time})`, text);
  say("progress", `Answered in ${time}.`);
  part("answer").replaceChildren(shown(answer, texts));
  showRaw(JSON.stringify(answer, null, 2));
}

function showFailure(sentence, text) {
  say("progress", "");
  say("failure", sentence);
  if (text) showRaw(text);
}

function showRaw(text) {
  say("raw", text);
  part("raw-details").hidden = false;
}

async function copy() {
  const text = part("command").textContent;
  try {
    // Browsers have no clipboard for pages that come over plain HTTP from another machine.
    await navigator.clipboard.writeText(text);
    say("copied", "Copied.");
  } catch {
    getSelection().selectAllChildren(part("command"));
    say("copied", document.execCommand("copy") ? "Copied." : "Selected: copy it with Ctrl+C.");
  }
}

/** Look at the models now; say so if the server does not tell them. */
async function look() {
  try {
    contract ??= await json("openapi.json");
    const found = await json("v2/models");
    models = new Map(found.models.map((model) => [model.name, model]));
    say("trouble", "");
  } catch (error) {
    say("trouble", `The models cannot be seen: ${error.message}`);
    return;
  }
  listModels();
  const wanted = nameInAddress() ?? chosen ?? firstModel();
  if (wanted !== null && !models.has(wanted)) say("trouble", `No model is named ${wanted}.`);
  await choose(wanted);
  showChosen();
  if (!metadata.inputs) await describe();
}

async function follow() {
  if (document.visibilityState === "visible") await look();
  setTimeout(follow, PAUSE_MS);
}

part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
part("form").addEventListener("input", showCommand);
part("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
});
part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  look();
});
part("copy").addEventListener("click", copy);
addEventListener("hashchange", () => {
  const name = nameInAddress();
  if (name !== null && models.has(name)) choose(name);
});
json("").then((server) => say("server", `${server.name} ${server.version}`), () => {});
follow();
