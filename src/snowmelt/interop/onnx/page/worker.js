// Holds the networks and draws, so that the page stays awake. It is told {files, table} once, then {draw} and {told}.

import { noise } from "./noise.js";
import { sample } from "./sampler.js";

const BATCH = 16; // images that are drawn at once
const sessions = {};
let ort = null;

async function session(file) {
  if (ort === null) {
    ort = await import("./ort/ort.wasm.min.mjs");
    ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  }
  sessions[file] ??= await ort.InferenceSession.create(new URL(file, import.meta.url).href);
  return sessions[file];
}

onmessage = async ({ data: { table, files, asked } }) => {
  try {
    const began = performance.now();
    for (const file of Object.values(files)) await session(file);
    postMessage({ ready: true });
    for (let start = 0; start < asked.length; start += BATCH) {
      await draw(table, files, asked.slice(start, start + BATCH), start, asked.length);
    }
    postMessage({ done: true, seconds: (performance.now() - began) / 1000 });
  } catch (error) {
    postMessage({ failed: String(error.message ?? error) });
  }
};

async function draw(table, files, asked, start, whole) {
  const shape = [table.channels, table.height, table.width];
  const size = shape.reduce((a, b) => a * b);
  const drawn = (row, scale) => {
    const all = new Float32Array(asked.length * size);
    asked.forEach(({ seed }, i) => all.set(noise(seed, row, size).map((z) => z * scale), i * size));
    return all;
  };
  const run = async (name, x, cNoise, told) => {
    const inputs = { x: new ort.Tensor("float32", x, [asked.length, ...shape]) };
    inputs.c_noise = new ort.Tensor("float32", cNoise, [asked.length]);
    for (const [input, { type, data, dims }] of Object.entries(told)) inputs[input] = new ort.Tensor(type, data, dims);
    return (await (await session(files[name])).run(inputs)).F.data;
  };
  const each = (row) => postMessage({ progress: (start + (asked.length * row) / table.rows.length) / whole });
  const x = await sample(table, asked.length, drawn(0, table.start), (k) => drawn(k + 1, 1), told(table, asked), run, each);
  asked.forEach((one, i) => postMessage({ image: x.slice(i * size, (i + 1) * size), one }));
}

// The networks' other inputs.
function told(table, asked) {
  const inputs = {};
  if (table.class_names) {
    const data = BigInt64Array.from(asked, ({ label }) => BigInt(label));
    inputs.label = { type: "int64", data, dims: [asked.length] };
  }
  if (table.values) {
    const rows = asked.flatMap(({ values }) => values);
    inputs.values = { type: "float32", data: Float32Array.from(rows), dims: [asked.length, table.values.columns.length] };
    const data = Uint8Array.from(asked, ({ label }) => Number(label === table.class_names?.length));
    inputs.withheld = { type: "bool", data, dims: [asked.length] };
  }
  return inputs;
}
