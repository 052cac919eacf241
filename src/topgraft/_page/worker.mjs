// Decodes photos and runs the model, beside the page so that it stays awake.
const LARGEST = 4096; // pixels a side where memory runs out otherwise

let model = null;
let opening = null;

async function open() {
  try {
    model = await import('./model.mjs');
  } catch {
    throw Object.assign(new Error("onnxruntime-web is missing. {{ npm }} brings it; README.md says which of its files belong in the folder runtime."), { fatal: true });
  }
  await model.open(async (name) => {
    const found = await fetch(name);
    if (!found.ok) throw Object.assign(new Error(`${name} is not beside this page (${found.status}).`), { fatal: true });
    return new Uint8Array(await found.arrayBuffer());
  });
}

// (h, w, 3) RGB as `photos/decode.py` has it: upright, over white, no change of colours.
async function decode(blob, longest) {
  let picture;
  try {
    picture = await createImageBitmap(blob, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  } catch {
    throw new Error('is not a picture this browser can read');
  }
  const by = Math.min(1, longest / Math.max(picture.width, picture.height));
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(by * side)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, width, height);
  picture.close();
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < pixels.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
  return [pixels, height, width];
}

async function answer(blob) {
  await (opening ??= open());
  const decoded = await decode(blob, LARGEST);
  try {
    return await model.run(...decoded);
  } catch {
    return model.run(...await decode(blob, 1024));
  }
}

self.addEventListener('message', async ({ data: { number, blob } }) => {
  try {
    self.postMessage({ number, ...(blob ? await answer(blob) : await (opening ??= open())) });
  } catch (error) {
    self.postMessage({ number, error: error.message, fatal: error.fatal });
  }
});
