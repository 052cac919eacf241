// node check.mjs FOLDER: pixels on stdin (height, width as uint32, then RGB), one line of JSON on stdout for each.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = path.resolve(process.argv[2]);
const model = await import(pathToFileURL(path.join(folder, 'model.mjs')));
await model.open((name) => readFile(path.join(folder, name)));

let held = Buffer.alloc(0);
const stream = process.stdin[Symbol.asyncIterator]();
async function take(count) {
  const parts = [held];
  let size = held.length;
  while (size < count) {
    const { value, done } = await stream.next();
    if (done) return null;
    parts.push(value);
    size += value.length;
  }
  const whole = Buffer.concat(parts);
  held = whole.subarray(count);
  return whole.subarray(0, count);
}
for (let head = await take(8); head; head = await take(8)) {
  const [height, width] = [head.readUInt32LE(0), head.readUInt32LE(4)];
  const pixels = new Uint8Array(await take(3 * height * width));
  process.stdout.write(`${JSON.stringify(await model.run(pixels, height, width))}\n`);
}
