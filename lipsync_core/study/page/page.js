"use strict";
/* One question after another: fetch it, play its clips together, collect the answers, save, go on.
   What is answered but not yet saved is kept in this browser, so that closing the page loses nothing. */

const QUESTIONS = [
  ["sync", "Do the lips match the speech?", "1 not at all, 5 perfectly"],
  ["quality", "How good does the picture of the face look?", "1 bad, 5 excellent"],
  ["overall", "How good is the clip as a whole?", "1 bad, 5 excellent"],
];
const TOLERANCE = 0.08; // s between two clips before one is moved: two frames at 25 fps
const base = location.pathname.replace(/\/$/, "");
const $ = (id) => document.getElementById(id);
const letter = (place) => String.fromCharCode(65 + place);

let task = null;
let videos = [];
let heard = 0;
let watched = new Set();
let saving = false;

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function say(text, warn = false) {
  $("status").textContent = text;
  $("status").classList.toggle("warn", warn);
  fitScrolling();
  if (warn) $("status").scrollIntoView({ block: "nearest" });
}

function show(id) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== id;
}

/* --- the question ------------------------------------------------------------------------------------------------ */

async function load() {
  for (let wait = 1; ; wait = Math.min(2 * wait, 15)) {
    try {
      const answer = await fetch(`${base}/task`, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      task = await answer.json();
      break;
    } catch {
      show("trouble");
      await new Promise((go) => setTimeout(go, 1000 * wait));
    }
  }
  $("title").textContent = document.title = task.title;
  if (task.finished) {
    $("where").textContent = "Finished";
    $("progress").value = $("progress").max;
    videos = [];
    $("videos").replaceChildren();
    show("finished");
    $("thanks").focus();
    return;
  }
  $("where").textContent = `Question ${task.done + 1} of ${task.total}`;
  $("progress").max = task.total;
  $("progress").value = task.done;
  show("judging");
  build();
  restoreDraft();
  say("");
  $("title").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function build() {
  const n = task.media.length;
  document.documentElement.style.setProperty("--columns", n <= 4 ? n : Math.ceil(n / 2));
  watched = new Set();
  videos = task.media.map((media, place) => {
    const video = element("video", { src: `${base}/media/${media}`, preload: "auto", playsinline: "", "aria-label": `Clip ${letter(place)}` });
    video.disableRemotePlayback = true;
    video.addEventListener("ended", () => { watched.add(place); keepDraft(); showPlaying(); });
    video.addEventListener("play", showPlaying);
    video.addEventListener("pause", showPlaying);
    video.addEventListener("error", () => {
      $("unplayable").hidden = false;
      say(`Clip ${letter(place)} does not play here. Reload the page; if that does not help, skip this question.`, true);
    });
    video.addEventListener("click", () => listen(place));
    return video;
  });
  $("unplayable").hidden = true;
  $("videos").classList.toggle("many", n > 2);
  $("videos").replaceChildren(...videos.map((video, place) => {
    const button = element("button", { type: "button" }, `Clip ${letter(place)}`, element("span", { class: "hint" }));
    button.addEventListener("click", () => listen(place));
    return element("figure", { class: "clip" }, video, button);
  }));
  $("questions").replaceChildren(...QUESTIONS.map(question), preference());
  listen(0);
  showPlaying();
  markCurrent();
  fitScrolling();
}

/* What is scrolled to must not hide behind the clips where they stay on top. */
function fitScrolling() {
  const stage = document.querySelector(".stage");
  const covered = getComputedStyle(stage).position === "sticky" ? stage.offsetHeight + 8 : 0;
  document.documentElement.style.scrollPaddingTop = `${covered}px`;
}

function radio(name, value, label, text, ...extra) {
  const input = element("input", { type: "radio", name, value, "aria-label": label });
  return element("label", {}, input, element("b", { "aria-hidden": "true" }, text, ...extra));
}

function question([key, text, hint]) {
  const rows = task.media.map((_, place) => {
    const scale = element("div", { class: "scale", role: "radiogroup", "aria-label": `Clip ${letter(place)}: ${text}` });
    for (let value = 1; value <= 5; value++) scale.append(radio(`${key}-${place}`, value, `${value} of 5`, value));
    return element("div", { class: "row", "data-name": `${key}-${place}` }, element("span", {}, `Clip ${letter(place)}`), scale);
  });
  const legend = element("legend", {}, text, element("small", {}, hint));
  return element("fieldset", {}, legend, element("div", { class: "rows" }, ...rows));
}

function preference() {
  const choice = element("div", { class: "choice", "data-name": "preferred" });
  task.media.forEach((_, place) => {
    choice.append(radio("preferred", place, `Clip ${letter(place)}`, `Clip ${letter(place)}`, element("kbd", {}, letter(place))));
  });
  return element("fieldset", {}, element("legend", {}, "Which clip do you prefer?"), choice);
}

/* --- playing together -------------------------------------------------------------------------------------------- */

const playing = () => videos.some((video) => !video.paused && !video.ended);

function showPlaying() {
  const all = videos.length === 2 ? "both" : "all";
  $("play").firstChild.textContent = playing() ? "Pause " : `Play ${all} `;
}

function play() {
  // All at once inside the key or click that allows it; the watch below brings together what starts late.
  if (videos.every((video) => video.ended)) for (const video of videos) video.currentTime = 0;
  for (const video of videos) {
    if (!video.ended) video.play().catch((error) => { if (error.name === "NotAllowedError") say("Press Play once more.", true); });
  }
}

function toggle() {
  if (playing()) for (const video of videos) video.pause();
  else play();
}

function restart() {
  for (const video of videos) video.currentTime = 0;
  play();
}

/* One clip is heard at a time: phones allow no more, and two voices would drown each other. */
function listen(place) {
  heard = place;
  videos.forEach((video, k) => {
    video.muted = k !== place;
    const figure = video.parentNode;
    if (!figure) return;
    figure.classList.toggle("heard", k === place);
    const button = figure.querySelector("button");
    button.setAttribute("aria-pressed", k === place);
    button.querySelector(".hint").textContent = k === place ? "sound on" : "tap to hear";
  });
}

setInterval(() => {
  const lead = videos[heard];
  if (!lead || lead.paused || lead.ended || lead.seeking) return;
  for (const video of videos) {
    const behind = Math.abs(video.currentTime - lead.currentTime) > TOLERANCE;
    if (video !== lead && !video.paused && !video.ended && !video.seeking && behind) video.currentTime = lead.currentTime;
  }
}, 500);

/* --- answers ----------------------------------------------------------------------------------------------------- */

const rows = () => [...document.querySelectorAll("[data-name]")];
const answerOf = (name) => $("form").elements[name]?.value ?? "";
const open = () => rows().filter((row) => answerOf(row.dataset.name) === "");

/* The row that number keys answer: the one with the focus, else the first open one. */
function currentRow() {
  const focused = document.activeElement?.closest?.("[data-name]");
  return focused ?? open()[0] ?? null;
}

function markCurrent() {
  const current = currentRow();
  for (const row of rows()) row.classList.toggle("current", row === current);
}

function choose(name, value) {
  const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
  if (!input) return false;
  input.checked = true;
  keepDraft();
  return true;
}

function focusRow(row) {
  (row.querySelector("input:checked") ?? row.querySelector("input")).focus({ preventScroll: true });
  row.closest("fieldset").scrollIntoView({ block: "nearest" });
  markCurrent();
}

const draftKey = () => `draft:${task.task}`;

function keepDraft() {
  const answers = Object.fromEntries(rows().map((row) => [row.dataset.name, answerOf(row.dataset.name)]));
  try {
    localStorage.setItem(draftKey(), JSON.stringify({ answers, watched: [...watched] }));
  } catch { /* private windows may have no storage: the answers live in the page alone */ }
  markCurrent();
}

function restoreDraft() {
  let draft = null;
  try {
    draft = JSON.parse(localStorage.getItem(draftKey()));
  } catch { /* no storage */ }
  if (!draft) return;
  for (const [name, value] of Object.entries(draft.answers)) if (value !== "") choose(name, value);
  watched = new Set(draft.watched);
  keepDraft();
}

function vote() {
  const ratings = task.media.map((_, place) =>
    Object.fromEntries(QUESTIONS.map(([key]) => [key, Number(answerOf(`${key}-${place}`))])));
  return { task: task.task, preferred: Number(answerOf("preferred")), ratings };
}

function complete() {
  const unseen = task.media.findIndex((_, place) => !watched.has(place));
  if (unseen >= 0) {
    say(`Please play clip ${letter(unseen)} to its end first.`, true);
    $("play").focus({ preventScroll: true });
    return false;
  }
  const missing = open();
  if (missing.length) {
    say(missing.length === 1 ? "One answer is missing." : `${missing.length} answers are missing.`, true);
    focusRow(missing[0]);
    return false;
  }
  return true;
}

/* Tries until the server has it on its disk. Sending a vote twice is harmless: the server keeps one. */
async function save(body) {
  if (saving) return;
  saving = true;
  $("save").disabled = true;
  for (const video of videos) video.pause();
  for (let wait = 1; ; wait = Math.min(2 * wait, 15)) {
    try {
      const answer = await fetch(`${base}/vote`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
      if (answer.ok || answer.status === 409) break; // 409: answered before, in another window
      if (answer.status < 500) throw Object.assign(new Error(), { final: (await answer.text()) || answer.status });
      throw new Error(answer.status);
    } catch (error) {
      if (error.final) {
        say(`Not saved: ${error.final}`, true);
        saving = false;
        $("save").disabled = false;
        return;
      }
      say("Not saved yet: the study cannot be reached. Trying again; you may also come back later by your link.", true);
      await new Promise((go) => setTimeout(go, 1000 * wait));
    }
  }
  try { localStorage.removeItem(draftKey()); } catch { /* no storage */ }
  saving = false;
  $("save").disabled = false;
  await load();
}

/* --- hands ------------------------------------------------------------------------------------------------------- */

function onKey(event) {
  if (task?.finished !== false || !$("shortcuts").checked || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  const place = key.length === 1 ? key.charCodeAt(0) - 97 : -1;
  if (key === " ") {
    if (event.target.closest("button, summary, input[type=checkbox]")) return; // there it presses what has the focus
    if (!event.repeat) toggle();
  } else if (key === "r") restart();
  else if (key === "s") listen((heard + 1) % videos.length);
  else if (key >= "1" && key <= "5") {
    const row = currentRow();
    if (!row || row.dataset.name === "preferred") return;
    choose(row.dataset.name, key);
    const all = rows();
    focusRow(all[all.indexOf(row) + 1]);
  } else if (place >= 0 && place < videos.length) {
    choose("preferred", place);
    focusRow(document.querySelector('[data-name="preferred"]'));
  } else if (key === "enter" && !event.target.closest("button, summary, input")) $("form").requestSubmit();
  else return;
  event.preventDefault();
}

$("play").addEventListener("click", toggle);
$("restart").addEventListener("click", restart);
$("sound").addEventListener("click", () => listen((heard + 1) % videos.length));
$("form").addEventListener("change", keepDraft);
$("form").addEventListener("focusin", markCurrent);
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (complete()) save(vote());
});
$("unplayable").addEventListener("click", () => save({ task: task.task, preferred: null, ratings: [] }));
document.addEventListener("keydown", onKey);
addEventListener("resize", fitScrolling);
load();
