// Noise as a pure function: the same seed and row give the numbers that `snowmelt sample` draws for them.

const MULTIPLIER = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const BUMP = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const LOW = (1n << 64n) - 1n;

// Philox of Salmon et al. 2011 with four words of 64 bits and ten rounds: the block of this number.
function philox(seed, row, number) {
  let [a, b, c, d] = [number, 0n, 0n, 0n];
  let [k, l] = [seed, row];
  for (let round = 0; round < 10; round++) {
    const [x, y] = [MULTIPLIER[0] * a, MULTIPLIER[1] * c];
    [a, b, c, d] = [(y >> 64n) ^ b ^ k, y & LOW, (x >> 64n) ^ d ^ l, x & LOW];
    [k, l] = [(k + BUMP[0]) & LOW, (l + BUMP[1]) & LOW];
  }
  return [a, b, c, d];
}

// `count` standard normal numbers: pairs of random words become pairs of normals (Box & Muller 1958).
export function noise(seed, row, count) {
  const pairs = Math.ceil(count / 2);
  const words = new Float32Array(Math.ceil(pairs / 4) * 8);
  for (let block = 0; block * 4 < pairs; block++) {
    philox(BigInt(seed), BigInt(row), BigInt(block + 1)).forEach((bits, i) => {
      words[block * 8 + 2 * i] = Number(bits & 0xffffffffn);
      words[block * 8 + 2 * i + 1] = Number(bits >> 32n);
    });
  }
  const normal = new Float32Array(2 * pairs);
  for (let i = 0; i < pairs; i++) {
    const radius = Math.sqrt(Math.max(-2 * Math.log((words[i] + 0.5) * 2 ** -32), 0));
    const angle = words[pairs + i] * (2 * Math.PI * 2 ** -32);
    normal[i] = radius * Math.cos(angle);
    normal[pairs + i] = radius * Math.sin(angle);
  }
  return normal.subarray(0, count);
}
