// The page for a person: an image in, the model's probabilities and the pixels that counted out.
"use strict";

const MOST_BYTES = 8e6; // larger images are made smaller here before they are sent
const MOST_SIDE = 1600;
const at = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token");
let round = 0; // of the image that was given last: answers to earlier ones are dropped
let stream = null;
let explained = null;

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    at("token-form").hidden = false;
    at("token").focus();
    throw new Refused(token ? "The server did not accept this token." : "This server asks for its token first.");
  }
  if (!answer.ok) throw new Error(sentence(content.error || `the server answered ${answer.status}`));
  return content;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.?$/, ".");
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const points = (drop) => (100 * drop).toFixed(1).replace(/^-0\.0$/, "0.0").replace("-", "\u2212");

async function showModel() {
  try {
    const { model } = await ask("/version");
    const accuracy = model.accuracy === null ? "" : `; right for ${percent(model.accuracy)} of the test images`;
    at("model").textContent = `${model.architecture} of ${model.name}, version ${model.version}${accuracy}. It tells apart: ${model.classes.join(", ")}.`;
  } catch (error) {
    at("model").textContent = error.message;
  }
}

async function classify(file, name) {
  const mine = ++round;
  at("error").textContent = "";
  at("status").textContent = "Classifying the image.";
  try {
    const small = await smaller(file);
    const form = () => { const made = new FormData(); made.append("file", small, name); return made; };
    const found = await ask("/predict", { method: "POST", body: form() });
    if (mine !== round) return;
    showClasses(found.images[0], file, name);
    at("status").textContent = "Looking for the pixels that counted.";
    const explanation = await ask("/explain", { method: "POST", body: form() });
    if (mine !== round) return;
    showExplanation(explanation);
    at("status").textContent = "";
  } catch (error) {
    if (mine !== round) return;
    at("status").textContent = "";
    at("error").textContent = error.message;
  }
}

async function smaller(file) {
  if (file.size <= MOST_BYTES) return file;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return file; // the server says what is wrong with it
  }
  const scale = Math.min(1, MOST_SIDE / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function showClasses(image, file, name) {
  explained = null;
  at("counted").hidden = true;
  at("heat").hidden = true;
  at("heat").parentElement.classList.remove("mapped");
  at("heat-caption").textContent = "";
  at("seen").removeAttribute("src");
  at("verdict").textContent = `${image.class}: ${percent(image.probability)}`;
  URL.revokeObjectURL(at("given").src);
  at("given").src = URL.createObjectURL(file);
  at("given").alt = "The image that was given";
  at("given-name").textContent = name ? `: ${name}` : "";
  at("classes").replaceChildren(...Object.entries(image.probabilities).map(([label, share], index) => {
    const row = document.createElement("tr");
    if (index === 0) row.className = "best";
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = label;
    const number = document.createElement("td");
    number.className = "number";
    number.textContent = percent(share);
    const bar = document.createElement("td");
    const meter = document.createElement("meter");
    meter.max = 1;
    meter.value = share;
    meter.setAttribute("aria-hidden", "true"); // the number beside it says it
    bar.append(meter);
    row.append(head, number, bar);
    return row;
  }));
  at("result").hidden = false;
  at("verdict").focus();
}

function showExplanation(answer) {
  explained = answer;
  at("seen").src = answer.seen;
  at("seen").alt = "The image as 32 x 32 pixels";
  at("square-pixels").textContent = at("square-pixels-2").textContent = answer.square_pixels;
  at("of-class").replaceChildren(...Object.keys(answer.image.probabilities).map((label) => new Option(label, label)));
  at("counted").hidden = false;
  showHeat();
}

function showHeat() {
  if (!explained) return;
  const label = at("of-class").value;
  const drops = explained.drops[label];
  const most = Math.max(1e-6, ...drops.flat().map(Math.abs));
  const canvas = at("heat");
  const side = drops.length;
  const cell = 16; // pixels of the canvas
  canvas.width = canvas.height = side * cell;
  const context = canvas.getContext("2d");
  drops.forEach((row, y) => row.forEach((drop, x) => {
    const strength = 0.75 * Math.abs(drop) / most;
    if (drop >= 0) {
      context.fillStyle = `rgba(0, 114, 178, ${strength})`;
      context.fillRect(x * cell, y * cell, cell, cell);
    } else {
      context.fillStyle = `rgba(213, 94, 0, ${strength})`; // hatched, to be told apart without colours
      for (let line = 0; line < cell; line++) for (let column = 0; column < cell; column++) if ((line + column) % 4 < 2) context.fillRect(x * cell + column, y * cell + line, 1, 1);
    }
  }));
  canvas.hidden = !at("show-heat").checked;
  canvas.parentElement.classList.toggle("mapped", !canvas.hidden); // the image in grey under it, or its colours would be taken for the map's
  const words = inWords(label, drops, most);
  canvas.setAttribute("aria-label", words);
  at("heat-words").textContent = words;
  at("heat-caption").textContent = canvas.hidden ? "" : `, in grey under the map of what counted for ${label}`;
  at("heat-table").tBodies[0].replaceChildren(...drops.map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((drop) => Object.assign(document.createElement("td"), { textContent: points(drop) })));
    return line;
  }));
}

function inWords(label, drops, most) {
  const share = explained.image.probabilities[label];
  const cells = drops.flatMap((row, y) => row.map((drop, x) => ({ drop, x, y })));
  const top = cells.reduce((best, one) => (one.drop > best.drop ? one : best));
  if (most < 0.005) return `Covering any one part changes the probability of ${label} (${percent(share)}) by less than half a point.`;
  if (top.drop <= 0) return `Covering any part raises the probability of ${label} (${percent(share)}).`;
  const third = (value) => Math.min(2, Math.floor(3 * (value + 0.5) / drops.length));
  const place = [["top left", "top", "top right"], ["left", "middle", "right"], ["bottom left", "bottom", "bottom right"]][third(top.y)][third(top.x)];
  return `The probability of ${label} (${percent(share)}) falls most, by ${points(top.drop)} points on average, when the ${place} is covered (row ${top.y + 1}, column ${top.x + 1} of ${drops.length}).`;
}

function take(files) {
  const file = [...(files || [])].find((one) => one.type.startsWith("image/")) || (files && files[0]);
  if (file) classify(file, file.name);
}

async function startCamera() {
  at("error").textContent = "";
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    at("error").textContent = "The camera cannot be used: it is missing, in use, or was not allowed.";
    return;
  }
  at("video").srcObject = stream;
  await at("video").play();
  at("drop").hidden = true;
  at("camera").hidden = false;
  at("shoot").focus();
}

function stopCamera() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  at("video").srcObject = null;
  at("camera").hidden = true;
  at("drop").hidden = false;
  at("start-camera").focus();
}

function shoot() {
  const video = at("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  stopCamera();
  canvas.toBlob((blob) => classify(blob, "camera.png"), "image/png");
}

at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) { event.preventDefault(); take(event.clipboardData.files); }
});
document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
if (navigator.mediaDevices && navigator.mediaDevices.getUserMedia) at("start-camera").hidden = false; // only where the page is secure
at("start-camera").addEventListener("click", startCamera);
at("stop-camera").addEventListener("click", stopCamera);
at("shoot").addEventListener("click", shoot);
at("of-class").addEventListener("change", showHeat);
at("show-heat").addEventListener("change", showHeat);
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  sessionStorage.setItem("token", token);
  at("token").value = "";
  at("token-form").hidden = true;
  at("error").textContent = "";
  showModel();
});
showModel();
