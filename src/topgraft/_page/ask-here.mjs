// A photo becomes an answer in this browser; it is sent nowhere.
export const several_at_once = 1;
export const where = false;

const worker = new Worker('worker.mjs', { type: 'module' });
const asked = new Map();
let card = null;
let number = 0;

worker.addEventListener('message', ({ data }) => {
  const { done, failed } = asked.get(data.number);
  asked.delete(data.number);
  if (data.error) failed(Object.assign(new Error(data.error), { fatal: data.fatal }));
  else done(data);
});

const send = (what) => new Promise((done, failed) => {
  number += 1;
  asked.set(number, { done, failed });
  worker.postMessage({ number, ...what });
});

export async function about() {
  if (location.protocol === 'file:') {
    throw new Error('A browser reads this folder from a web server only. In the folder: python3 -m http.server, then open http://localhost:8000');
  }
  card = await (await fetch('card.json')).json();
  await send({ open: true });
  let note = 'Photos stay in this browser. Nothing is sent.';
  if (navigator.serviceWorker) {
    await navigator.serviceWorker.register('offline.js');
    await navigator.serviceWorker.ready;
    note += ' From now on it works without a network, too.';
  }
  return { classes: card.classes, note };
}

// The same words as `topgraft predict --json`.
export async function ask(blob, name) {
  const { probabilities, distance } = await send({ blob });
  const sorted = card.classes.map((label, i) => [label, probabilities[i]]).sort((a, b) => b[1] - a[1]);
  const [label, probability] = sorted[0];
  const unknown = card.unknown !== null && distance > card.unknown.threshold;
  const unsure = (card.answer_above ?? null) !== null && probability < card.answer_above;
  return {
    path: name,
    answer: unknown || unsure ? '' : label,
    label,
    probability,
    runner_up: sorted[1]?.[0] ?? '',
    unknown,
    unsure,
    distance,
    probabilities: Object.fromEntries(sorted),
  };
}
