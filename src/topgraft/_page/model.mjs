// The model in onnxruntime-web; the same file in a browser and in Node.js, where `topgraft export` checks it.
import * as ort from './runtime/ort.wasm.min.mjs';

let session = null;

// read(name) gives the bytes of a file of this folder.
export async function open(read) {
  ort.env.wasm.numThreads = 1; // more need headers that few web servers send
  ort.env.wasm.wasmBinary = await read('runtime/ort-wasm-simd-threaded.wasm');
  session = await ort.InferenceSession.create(await read('model.onnx'));
}

// pixels: (height, width, 3) RGB in one Uint8Array
export async function run(pixels, height, width) {
  const image = new ort.Tensor('uint8', pixels, [height, width, 3]);
  const found = await session.run({ image }, ['probabilities', 'distance']);
  return { probabilities: Array.from(found.probabilities.data), distance: found.distance.data[0] };
}
