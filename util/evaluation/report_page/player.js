"use strict";

// The table: a click on a heading sorts by its column, a second click reverses the order.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const column = heading.cellIndex;
    const order = heading.ariaSort === "ascending" ? "descending" : "ascending";
    for (const other of heading.parentElement.cells) other.ariaSort = other === heading ? order : "none";
    const sign = order === "ascending" ? 1 : -1;
    const body = document.querySelector("tbody");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (a, b) => {
      const isText = a.cells[column].dataset.value === undefined;
      if (isText) return sign * value(a).localeCompare(value(b), undefined, { numeric: true });
      const [x, y] = [Number(value(a)), Number(value(b))];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // NaN comes last
      return sign * (x - y);
    };
    body.append(...[...body.rows].sort(compare));
  });
}

async function decode(type, base64) {
  const image = new Image();
  image.src = `data:image/${type};base64,${base64}`;
  await image.decode();
  return image;
}

// A player, made when its video comes near the window; until then its pictures stay undecoded.
function makePlayer(video) {
  const pictures = JSON.parse(video.querySelector("script").textContent);
  const canvas = video.querySelector("canvas");
  const slider = video.querySelector("[type=range]");
  const output = video.querySelector("output");
  const play = video.querySelector(".play");
  const objects = [...video.querySelectorAll(".objects li")];
  const last = video.dataset.length - 1;
  const percent = (value) => (100 * value).toFixed(1);
  let asked = 0;
  let timer = 0;

  async function draw() {
    const ticket = ++asked;
    const picture = pictures[slider.value];
    const kind = video.querySelector("[type=radio]:checked").value;
    const isMissing = kind !== "none" && !picture[kind];
    output.value = isMissing ? `${picture.name} (no ${kind})` : picture.name;
    video.style.setProperty("--at", last ? picture.number / last : 0);
    const spoken = [`frame ${picture.name}`];
    objects.forEach((item, index) => {
      const scores = picture.j && picture.j[index] !== null ? `J ${percent(picture.j[index])} · F ${percent(picture.f[index])}` : "";
      item.querySelector("span").textContent = scores;
      if (scores) spoken.push(item.textContent);
    });
    slider.setAttribute("aria-valuetext", spoken.join(", "));
    canvas.setAttribute("aria-label", `${kind === "none" ? "frame" : kind} of frame ${picture.name}`);
    const layers = [decode("webp", picture.frame)];
    if (picture[kind]) layers.push(decode("png", picture[kind]));
    const images = await Promise.all(layers);
    if (ticket !== asked) return; // another frame was requested meanwhile
    const context = canvas.getContext("2d");
    for (const image of images) context.drawImage(image, 0, 0, canvas.width, canvas.height);
  }

  function show(index) {
    slider.value = index;
    draw();
  }

  function showNearest(number) {
    const distance = (index) => Math.abs(pictures[index].number - number);
    show([...pictures.keys()].reduce((best, index) => (distance(index) < distance(best) ? index : best)));
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  play.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      show(Number(slider.value) + 1);
      if (slider.value === slider.max) stop();
    }, 100);
  });
  slider.addEventListener("input", () => {
    stop();
    draw();
  });
  canvas.addEventListener("click", () => slider.focus());
  for (const radio of video.querySelectorAll("[type=radio]")) radio.addEventListener("change", draw);
  for (const area of video.querySelectorAll(".area")) {
    const scrub = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = area.getBoundingClientRect();
      const style = getComputedStyle(area);
      const at = (event.clientX - box.left) / box.width - style.getPropertyValue("--left");
      stop();
      showNearest((at / style.getPropertyValue("--width")) * last);
    };
    area.addEventListener("pointerdown", scrub);
    area.addEventListener("pointermove", scrub);
  }
  draw();
  return { showNearest, focus: () => slider.focus({ preventScroll: true }) };
}

const players = new Map();

function playerOf(video) {
  if (!players.has(video)) players.set(video, makePlayer(video));
  return players.get(video);
}

const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) playerOf(entry.target);
  },
  { rootMargin: "600px" },
);
for (const video of document.querySelectorAll(".video")) near.observe(video);

// The link of a worst moment. The browser's own jump would take the focus off the slider.
for (const link of document.querySelectorAll("[data-frame]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    history.pushState(null, "", link.hash);
    const video = document.querySelector(link.hash);
    video.scrollIntoView();
    playerOf(video).showNearest(Number(link.dataset.frame));
    playerOf(video).focus();
  });
}
