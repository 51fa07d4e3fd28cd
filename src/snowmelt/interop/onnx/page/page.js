// The page's controls: what is asked for, how far it is, and the images as they come.

const NONE = "No class";
const ALL = "All in turn";
const SMALL = 64; // pixels up to which an image is shown as squares
const WITHOUT_RUNTIME =
  "onnxruntime-web is not here. Put ort.wasm.min.mjs, ort-wasm-simd-threaded.mjs and ort-wasm-simd-threaded.wasm into " +
  "the folder ort; npm install onnxruntime-web has them in node_modules/onnxruntime-web/dist.";
const by = (id) => document.getElementById(id);
let table = null;
let worker = null;

function say(text, failed = false) {
  by("status").textContent = text;
  by("status").classList.toggle("failed", failed);
}

function option(select, text, value) {
  select.append(new Option(text, value));
}

function set(busy) {
  by("draw").disabled = busy;
  by("stop").disabled = !busy;
}

function describe() {
  const steps = table.rows.filter((row) => row.done).length;
  const led = table.rows.filter((row) => row.guided).length * (table.class_guidance === 1 ? 1 : 2);
  const calls = table.rows.filter((row) => row.b.length).length + led;
  by("about").textContent =
    `A diffusion model of images of ${table.width} x ${table.height} pixels, drawn by ${table.name} in ` +
    `${steps} ${steps === 1 ? "step" : "steps"} (${calls} network passes each).`;
  if (table.class_names) {
    by("class-field").hidden = false;
    option(by("class"), ALL, "all");
    table.class_names.forEach((name, label) => option(by("class"), name, label));
    option(by("class"), NONE, table.class_names.length);
  }
  for (const [precision, { bytes }] of Object.entries(table.files)) {
    option(by("precision"), `${precision} (${(bytes / 1e6).toFixed(1)} MB)`, precision);
    if (precision === "float16") by("precision").value = precision;
  }
  by("images").style.setProperty("--cell", `${Math.max(6, Math.min(table.width, 256) / 16)}rem`);
  for (const column of table.values?.columns ?? []) {
    const label = document.createElement("label");
    label.textContent = column.name;
    const input = Object.assign(document.createElement("input"), { type: "number", step: "any", name: column.name });
    label.append(input);
    by("values").append(label);
    by("values").hidden = false;
  }
}

// One entry an image: seed s has class s in turn, and the values of a training image but for those that are given.
function asked() {
  const chosen = by("class").value;
  const classes = table.class_names?.length ?? 0;
  const given = [...by("values").querySelectorAll("input")];
  return Array.from({ length: Number(by("count").value) }, (_, i) => {
    const seed = Number(by("seed").value) + i;
    const examples = table.values?.examples;
    const values = examples?.[seed % examples.length].map((value, j) => {
      const { mean, std } = table.values.columns[j];
      return given[j].value === "" ? value : (Number(given[j].value) - mean) / std;
    });
    return { seed, values, label: chosen === "all" ? seed % classes : Number(chosen) };
  });
}

function titleOf({ seed, label }) {
  const name = table.class_names ? table.class_names[label] ?? NONE : "Image";
  return `${name}, seed ${seed}`;
}

// [-1, 1] of one, three or more channels as a picture.
function show(image, one) {
  const { channels, height, width } = table;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const size = width * height;
  const colour = channels >= 3 ? [0, 1, 2] : [0, 0, 0];
  const byte = (channel, i) => Math.round((Math.max(-1, Math.min(1, image[channel * size + i])) + 1) * 127.5);
  for (let i = 0; i < size; i++) {
    colour.forEach((channel, j) => (pixels.data[4 * i + j] = byte(channel, i)));
    pixels.data[4 * i + 3] = channels === 2 || channels === 4 ? byte(channels - 1, i) : 255;
  }
  context.putImageData(pixels, 0, 0);
  const title = titleOf(one);
  const address = canvas.toDataURL();
  const picture = Object.assign(new Image(), { src: address, alt: title, width, height });
  picture.classList.toggle("small", Math.min(width, height) <= SMALL);
  const link = Object.assign(document.createElement("a"), { href: address, download: `${title.replaceAll(", ", "-")}.png` });
  const words = Object.assign(document.createElement("span"), { textContent: title });
  words.setAttribute("aria-hidden", "true"); // the picture says it
  link.append(picture, words);
  const item = document.createElement("li");
  item.append(link);
  by("images").append(item);
}

function stop(words, failed = false) {
  set(false);
  say(words, failed);
}

function end() {
  worker.terminate();
  worker = null;
}

function start() {
  worker = new Worker("worker.js", { type: "module" });
  worker.onerror = () => stop("The page's worker could not be started: serve this folder over HTTP.", true);
  worker.onmessage = ({ data }) => {
    if (data.ready) say("Drawing ...");
    if (data.progress !== undefined) by("progress").value = data.progress;
    if (data.image) show(data.image, data.one);
    if (data.done) stop(`${by("images").children.length} images in ${data.seconds.toFixed(1)} s.`);
    if (data.failed) {
      end();
      stop(data.failed.includes("ort.wasm.min.mjs") ? WITHOUT_RUNTIME : `It failed: ${data.failed}`, true);
    }
  };
}

by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  by("images").replaceChildren();
  by("progress").value = 0;
  set(true);
  say("Loading the network ...");
  if (worker === null) start();
  const { bytes, ...files } = table.files[by("precision").value];
  worker.postMessage({ table, files, asked: asked() });
});

by("stop").addEventListener("click", () => {
  end();
  stop("Stopped.");
});

try {
  table = await (await fetch("table.json")).json();
  describe();
  set(false);
} catch (error) {
  say(`table.json cannot be read (${error.message}). Serve this folder: python -m http.server`, true);
}
