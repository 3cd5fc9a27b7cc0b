// Builds the form of a model from its inputs and from the JSON schema of its task's parameters.

import { element } from "./answers.js";

/** One field of the form: its control, and how its value is read (undefined if it is empty). */
class Field {
  constructor(name, control, read, hint, label = name) {
    Object.assign(this, { name, control, read });
    control.id = `field-${name}`;
    this.mistake = element("p", { class: "mistake", id: `mistake-${name}` });
    control.setAttribute("aria-describedby", `hint-${name} mistake-${name}`);
    this.node = element(
      "div",
      { class: "field" },
      element("label", { for: control.id }, label),
      control,
      element("p", { class: "hint", id: `hint-${name}` }, hint),
      this.mistake,
    );
  }

  /** Say what is wrong with the value; an empty text takes it back. */
  complain(sentence) {
    this.mistake.textContent = sentence;
    this.control.setAttribute("aria-invalid", String(Boolean(sentence)));
  }
}

/** Return the fields of a model's texts. With one input, each line may be a text of its own. */
export function inputFields(names) {
  return names.map((name) => {
    const control = element("textarea", { rows: "4", name, spellcheck: "false" });
    return new Field(name, control, () => control.value, "");
  });
}

/** Return the fields of a task's parameters. `schema` is its JSON schema. */
export function parameterFields(schema) {
  return Object.entries(schema.properties ?? {}).map(([name, property]) => parameterField(name, property));
}

/** Whether a parameter holds content, such as labels to choose from, rather than a setting. */
export function isContent(field) {
  return field.control.tagName === "TEXTAREA";
}

function parameterField(name, property) {
  const hint = described(property);
  if (property.enum) return choiceField(name, property.enum.map((value) => [value, value]), hint);
  if (property.type === "boolean") return choiceField(name, [["true", true], ["false", false]], hint);
  if (property.type === "integer" || property.type === "number") return numberField(name, property, hint);
  if (property.type === "array") return listField(name, hint);
  const control = element("input", { type: "text", name, placeholder: property.default ?? "" });
  return new Field(name, control, () => control.value || undefined, hint);
}

function choiceField(name, choices, hint) {
  const options = choices.map(([word]) => element("option", { value: word }, word));
  const control = element("select", { name }, element("option", { value: "" }, "not set"), ...options);
  const values = new Map(choices.map(([word, value]) => [String(word), value]));
  return new Field(name, control, () => values.get(control.value), hint);
}

function numberField(name, property, hint) {
  const control = element("input", {
    type: "text",
    inputmode: property.type === "integer" ? "numeric" : "decimal",
    name,
    placeholder: String(property.default ?? ""),
  });
  const read = () => {
    const text = control.value.trim();
    if (!text) return undefined;
    const value = Number(text);
    const wrong = mistakeOf(value, property);
    if (wrong) throw new Error(`${name}: got ${text}; must be ${wrong}`);
    return value;
  };
  return new Field(name, control, read, hint);
}

/** Return what a number must be that it is not; an empty text if it may be sent. */
function mistakeOf(value, property) {
  const fits =
    Number.isFinite(value) &&
    (property.type !== "integer" || Number.isInteger(value)) &&
    !(value < property.minimum) &&
    !(value > property.maximum) &&
    !(value <= property.exclusiveMinimum) &&
    !(value >= property.exclusiveMaximum);
  return fits ? "" : [property.type === "integer" ? "a whole number" : "a number", bounds(property)].join(" ");
}

function listField(name, hint) {
  const control = element("textarea", { rows: "3", name, spellcheck: "false" });
  const read = () => {
    const lines = control.value.split("\n").map((line) => line.trim()).filter(Boolean);
    return lines.length ? lines : undefined;
  };
  return new Field(name, control, read, ["One a line.", hint].filter(Boolean).join(" "));
}

function bounds(property) {
  const low = property.minimum ?? property.exclusiveMinimum;
  const high = property.maximum ?? property.exclusiveMaximum;
  const words = [];
  if (low !== undefined) words.push(property.minimum === undefined ? `above ${low}` : `from ${low}`);
  if (high !== undefined) words.push(property.maximum === undefined ? `below ${high}` : `to ${high}`);
  return words.join(" ");
}

/** Return default and bounds in words. */
function described(property) {
  const parts = [];
  if (property.default !== undefined) parts.push(`Default ${JSON.stringify(property.default)}.`);
  if (bounds(property)) parts.push(`Values ${bounds(property)}.`);
  if (property.maxItems) parts.push(`At most ${property.maxItems}.`);
  return parts.join(" ");
}
