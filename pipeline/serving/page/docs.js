// Shows the server's OpenAPI document: its own renderers take their scripts from elsewhere, and this works offline.
"use strict";

const made = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text });

function table(head, rows) {
  const whole = document.createElement("table");
  const line = whole.createTHead().insertRow();
  head.forEach((text) => line.append(Object.assign(made("th", text), { scope: "col" })));
  const body = whole.createTBody();
  rows.forEach((cells) => {
    const row = body.insertRow();
    cells.forEach((text) => row.append(made("td", text)));
  });
  return whole;
}

function shape(schema) {
  if (schema.oneOf) return schema.oneOf.map(shape).join(" | ");
  if (schema.type === "array") return `[${schema.items ? shape(schema.items) : ""}, ...]`;
  if (schema.type === "object") {
    const inside = Object.entries(schema.properties || {}).map(([name, one]) => `"${name}": ${shape(one)}`);
    if (schema.additionalProperties) inside.push(`<class>: ${shape(schema.additionalProperties)}`);
    return `{${inside.join(", ")}}`;
  }
  return { binary: "file", byte: "base64" }[schema.format] || schema.type || "any";
}

function route(path, method, operation) {
  const section = document.createElement("section");
  section.append(made("h2", `${method.toUpperCase()} ${path}`), made("p", operation.description || operation.summary));
  if (operation.requestBody) {
    section.append(table(["Content type", "Body"], Object.entries(operation.requestBody.content).map(([kind, one]) => [kind, shape(one.schema)])));
  }
  section.append(table(["Status", "Answer"], Object.entries(operation.responses).map(([status, one]) => {
    const content = Object.values(one.content || {})[0];
    return [status, `${one.description}${content && content.schema ? `: ${shape(content.schema)}` : ""}`];
  })));
  return section;
}

fetch("/openapi.json").then((answer) => answer.json()).then((found) => {
  document.getElementById("model").textContent = `seqpipe ${found.info.version}`;
  document.getElementById("summary").textContent = found.info.description;
  document.getElementById("example").textContent = `curl -F file=@cat.png ${location.origin}/predict`;
  document.getElementById("routes").append(...Object.entries(found.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, one]) => route(path, method, one))));
});
