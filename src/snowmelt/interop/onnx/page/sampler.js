// A sampler is a table of numbers, and one loop runs them all; `draw.py` beside this file does the same.

const MOST = 4;

// Follow the table's rows from x, a Float32Array of `batch` images, to images in [-1, 1].
//   run(name, x, cNoise, told) -> F, the output of the network or the guide; draw(k) -> the noise of row k;
//   each(k) is called after every row
export async function sample(table, batch, x, draw, told, run, each) {
  let states = [x];
  let outputs = [];
  for (const [k, row] of table.rows.entries()) {
    let fraction = null;
    if (row.b.length) {
      const found = await denoise(table, row, batch, states[0], told, run);
      fraction = found.fraction;
      outputs = [found.D, ...outputs.slice(0, MOST - 1)];
    }
    x = combined(row.a, states, row.b, outputs);
    if (row.c > 0) {
      const z = draw(k);
      for (let i = 0; i < x.length; i++) {
        const f = fraction ? fraction[i] : 0;
        x[i] += z[i] * (row.c_hi === undefined ? row.c : row.c ** (1 - f) * row.c_hi ** f);
      }
    }
    states = [x, ...states.slice(0, MOST - 1)];
    each(k + 1);
  }
  return x;
}

function combined(a, states, b, outputs) {
  const x = new Float32Array(states[0].length);
  const add = (number, array) => { if (number) for (let i = 0; i < x.length; i++) x[i] += number * array[i]; };
  a.forEach((number, i) => add(number, states[i]));
  b.forEach((number, j) => add(number, outputs[j]));
  return x;
}

// The estimate D of the clean images, guided and clipped, and where it is learned the part f of the noise's variance.
async function denoise(table, row, batch, x, told, run) {
  const found = await estimate(table, row, batch, x, told, "network", run);
  if (row.guided) {
    const lead = async (weight, told, name) => {
      const away = await estimate(table, row, batch, x, told, name, run);
      found.D = found.D.map((value, i) => away.D[i] + weight * (value - away.D[i]));
    };
    const none = withheld(told, table.withheld);
    if (table.class_guidance !== 1) await lead(table.class_guidance, none, "network");
    await lead(table.guidance, table.guide ? told : none, table.guide ? "guide" : "network");
  }
  if (table.clip !== "none") clip(found.D, batch, table.clip === "dynamic");
  return found;
}

async function estimate(table, row, batch, x, told, name, run) {
  const F = await run(name, x.map((value) => row.c_in * value), new Float32Array(batch).fill(row.c_noise), told);
  const size = x.length / batch;
  const stride = F.length / batch; // twice the size where the variance is learned
  const D = x.map((value, i) => row.c_skip * value + row.c_out * F[Math.floor(i / size) * stride + (i % size)]);
  if (!table.learned_variance) return { D, fraction: null };
  return { D, fraction: x.map((_, i) => (F[Math.floor(i / size) * stride + size + (i % size)] + 1) / 2) };
}

function withheld(told, values) {
  const less = { ...told };
  for (const [name, value] of Object.entries(values)) {
    const filler = typeof value === "boolean" ? Number(value) : BigInt(value);
    less[name] = { ...told[name], data: told[name].data.map(() => filler) };
  }
  return less;
}

// Keep estimates within [-1, 1]; `dynamic` divides by the 99.5% quantile of an image where that is above 1.
function clip(D, batch, dynamic) {
  const size = D.length / batch;
  for (let image = 0; image < batch; image++) {
    const part = D.subarray(image * size, (image + 1) * size);
    const bound = dynamic ? Math.max(1, quantile(part, 0.995)) : 1;
    for (let i = 0; i < size; i++) part[i] = Math.max(-bound, Math.min(bound, part[i])) / bound;
  }
}

function quantile(values, share) {
  const sorted = values.map(Math.abs).sort();
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}
