// What a person does and sees. How a photo becomes an answer is ask.mjs's affair.
import { about, ask, several_at_once, where } from './ask.mjs';

const $ = (id) => document.getElementById(id);
const percent = (p) => `${p > 0.995 && p < 1 ? '> 99' : p > 0 && p < 0.005 ? '< 1' : Math.round(100 * p)} %`;
const photos = []; // {blob, name, url, answer}, in the order they came
const rows = new Map(); // each photo's row in the table; a single photo has none
let shown = null;
let round = 0; // photos of an earlier round, before "Start over", are nobody's any more

// kind: '' for all to see, 'bad' for trouble, 'heard' for those who listen: others see it elsewhere
function say(text, kind = '') {
  $('status').textContent = text;
  $('status').className = kind;
}

// One answer in words: what it is, and what should be said beside it.
function words(answer) {
  if (answer.error) {
    const why = answer.error.replace(`${answer.path}: `, '');
    return { short: why, long: 'This photo could not be read', more: `${answer.path ?? 'It'} ${why}.`, kind: 'bad' };
  }
  if (answer.unknown) {
    return {
      short: 'unknown', long: 'None of the classes it knows', kind: 'doubt',
      more: `Unlike anything it learned from. Of its classes, ${answer.label} is the nearest.`,
    };
  }
  if (answer.unsure) {
    return {
      short: `unsure: ${answer.label}?`, long: `Not sure: ${answer.label}?`, kind: 'doubt',
      more: `${percent(answer.probability)}, less than it takes for an answer.`,
    };
  }
  return { short: answer.label, long: answer.label, more: `${percent(answer.probability)} sure`, kind: '' };
}

function bars(probabilities) {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  $('bars').replaceChildren(...sorted.slice(0, 12).map(([name, p]) => {
    const item = document.createElement('li');
    const label = Object.assign(document.createElement('span'), { className: 'name', textContent: name });
    const value = Object.assign(document.createElement('span'), { className: 'value', textContent: percent(p) });
    const meter = document.createElement('meter');
    meter.max = 1;
    meter.value = p;
    meter.setAttribute('aria-label', name);
    item.append(label, value, meter);
    return item;
  }));
  if (sorted.length > 12) {
    const rest = document.createElement('li');
    rest.textContent = `and ${sorted.length - 12} more below ${percent(sorted[11][1])}`;
    $('bars').append(rest);
  }
}

function show(photo, focus) {
  shown = photo;
  const { long, more, kind } = words(photo.answer);
  const [picture, looked] = $('card').querySelectorAll('img');
  picture.src = photo.url;
  picture.alt = photo.name;
  picture.hidden = Boolean(photo.answer.error);
  looked.hidden = true;
  $('answer').textContent = long;
  $('more').textContent = more;
  $('card').className = kind;
  bars(photo.answer.probabilities ?? {});
  $('looked').parentElement.hidden = !where || Boolean(photo.answer.error);
  $('looked').setAttribute('aria-pressed', 'false');
  $('card').hidden = false;
  if (focus) {
    $('answer').focus({ preventScroll: true });
    $('card').scrollIntoView({ block: 'nearest' });
  }
}

function row(photo) {
  const line = document.createElement('tr');
  const { short, kind } = words(photo.answer);
  const button = document.createElement('button');
  button.type = 'button';
  button.setAttribute('aria-label', `Show ${photo.name}`);
  button.append(Object.assign(document.createElement('img'), { src: photo.url, alt: '', loading: 'lazy' }));
  button.addEventListener('click', () => show(photo, true));
  for (const [content, name] of [
    [photo.answer.error ? '' : button, ''], [photo.name, 'name'], [short, kind],
    [photo.answer.error ? '' : percent(photo.answer.probability), 'number'],
  ]) {
    const cell = document.createElement('td');
    cell.className = name;
    if (name === 'name') cell.title = content;
    cell.append(content);
    line.append(cell);
  }
  return line;
}

function table() {
  const done = photos.filter((photo) => photo.answer);
  const counts = new Map();
  for (const { answer } of done) {
    const name = answer.error ? 'unreadable' : answer.unknown ? 'unknown' : answer.unsure ? 'unsure' : answer.label;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  $('count').textContent = `${photos.length} photos`;
  $('summary').textContent = [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => `${name} ${n}`).join(', ');
  $('many').hidden = false;
}

// Gives every photo a row, in the order they came: those that came before and wait for their answer, too.
function lay() {
  const body = $('many').querySelector('tbody');
  for (const photo of photos) {
    if (rows.has(photo)) continue;
    rows.set(photo, photo.answer ? row(photo) : document.createElement('tr'));
    body.append(rows.get(photo));
  }
}

async function look(blobs) {
  const mine = round;
  if (blobs.length > 1) $('card').hidden = true;
  const fresh = blobs.map((blob) => ({
    blob, name: blob.name || 'photo', url: URL.createObjectURL(blob), answer: null,
  }));
  photos.push(...fresh);
  let done = 0;
  say(fresh.length > 1 ? `Looking at ${fresh.length} photos …` : 'Looking …');
  const left = [...fresh];
  if (photos.length > 1) lay();
  const worker = async () => {
    for (let photo = left.shift(); photo && mine === round; photo = left.shift()) {
      try {
        photo.answer = await ask(photo.blob, photo.name, {});
      } catch (error) {
        if (error.fatal) { left.length = 0; throw error; }
        photo.answer = { path: photo.name, error: error.message };
      }
      if (mine !== round) return;
      done += 1;
      if (rows.has(photo)) {
        const line = row(photo);
        rows.get(photo).replaceWith(line);
        rows.set(photo, line);
        table();
        if (done % 10 === 0) say(`${done} of ${fresh.length} photos …`);
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(several_at_once, fresh.length) }, worker));
  } catch (error) {
    forget();
    if (error.token) { $('token').hidden = false; $('secret').focus(); waiting = blobs; }
    say(error.message, 'bad');
    return;
  }
  if (mine !== round) return;
  const { long, more } = words(fresh[0].answer);
  if (photos.length === 1) say(`${long}. ${more}`, 'heard');
  else if (photos.every((photo) => photo.answer)) say(`${photos.length} photos are done.`, 'heard');
  if (fresh.length === 1) show(fresh[0], true);
  else $('count').focus({ preventScroll: true });
}

function forget() {
  round += 1;
  for (const photo of photos) URL.revokeObjectURL(photo.url);
  photos.length = 0;
  rows.clear();
  shown = null;
  $('card').hidden = $('many').hidden = true;
  $('many').querySelector('tbody').replaceChildren();
  say('');
}

function csv() {
  const classes = [...new Set(photos.flatMap((photo) => Object.keys(photo.answer?.probabilities ?? {})))];
  // A spreadsheet takes a cell that begins like this for a formula.
  const cell = (value) => {
    const text = String(value ?? '').replace(/^(?=[=+\-@\t\r])/, typeof value === 'number' ? '' : "'");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [['photo', 'answer', 'label', 'probability', ...classes.map((name) => `p_${name}`), 'error']];
  for (const { name, answer } of photos) {
    if (!answer) continue;
    const said = answer.error ? '' : answer.unknown ? 'unknown' : answer.unsure ? 'unsure' : answer.label;
    lines.push([name, said, answer.label, answer.probability,
      ...classes.map((name) => answer.probabilities?.[name]), answer.error]);
  }
  return `${lines.map((line) => line.map(cell).join(',')).join('\r\n')}\r\n`;
}

let waiting = []; // photos that wait for a token
const camera = { video: document.querySelector('video'), stream: null };

async function open_camera() {
  if (!navigator.mediaDevices?.getUserMedia) { $('capture').click(); return; }
  $('photograph').disabled = true; // a second stream would never be stopped
  try {
    camera.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  } catch {
    $('photograph').disabled = false;
    $('capture').click(); // no camera that may be used: the system's own way, if there is one
    return;
  }
  camera.video.srcObject = camera.stream;
  $('camera').hidden = false;
  try {
    await camera.video.play();
  } catch {
    return; // closed before its first picture
  }
  $('shoot').disabled = false; // not before: there is no picture yet, and the press would be lost
  $('shoot').focus();
}

function close_camera() {
  for (const track of camera.stream?.getTracks() ?? []) track.stop();
  camera.video.srcObject = camera.stream = null;
  $('camera').hidden = $('shoot').disabled = true;
  $('photograph').disabled = false;
  $('photograph').focus();
}

async function shoot() {
  $('shoot').disabled = true; // one press, one photo
  const { videoWidth: width, videoHeight: height } = camera.video;
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  canvas.getContext('2d').drawImage(camera.video, 0, 0);
  const blob = await new Promise((done) => { canvas.toBlob(done, 'image/png'); });
  const taken = new Date().toTimeString().slice(0, 8).replaceAll(':', '-');
  close_camera();
  take([new File([blob], `camera ${taken}.png`, { type: 'image/png' })]);
}

function take(list) {
  const blobs = [...list].filter((blob) => blob.size > 0);
  if (blobs.length) look(blobs);
  else say('There was no photo in that.', 'bad');
}

$('photograph').addEventListener('click', open_camera);
$('shoot').addEventListener('click', shoot);
$('close').addEventListener('click', close_camera);
$('clear').addEventListener('click', () => { forget(); $('files').focus(); });
for (const input of [$('files'), $('capture')]) {
  const picked = () => { if (input.files.length) take(input.files); input.value = ''; };
  input.addEventListener('change', picked);
  picked(); // what was chosen before this script was here
}
$('photograph').disabled = false; // it can do nothing without the script; choosing can
$('csv').addEventListener('click', () => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([csv()], { type: 'text/csv' }));
  link.download = 'answers.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
$('looked').addEventListener('click', async () => {
  const photo = shown;
  const overlay = $('card').querySelector('.looked');
  const on = $('looked').getAttribute('aria-pressed') !== 'true';
  $('looked').setAttribute('aria-pressed', String(on));
  overlay.hidden = true;
  if (!on) return;
  try {
    photo.looked ??= (await ask(photo.blob, photo.name, { looked: true })).looked;
  } catch (error) {
    say(error.message, 'bad');
    return;
  }
  if (photo !== shown || $('looked').getAttribute('aria-pressed') !== 'true') return;
  overlay.src = photo.looked;
  overlay.alt = `Where it looked for ${photo.answer.label}`;
  overlay.hidden = false;
});
$('token').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem('token', $('secret').value);
  $('token').hidden = true;
  const again = waiting;
  waiting = [];
  introduce().then(() => { if (again.length) look(again); });
});
document.addEventListener('dragover', (event) => { event.preventDefault(); $('give').classList.add('over'); });
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) $('give').classList.remove('over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  $('give').classList.remove('over');
  take(event.dataTransfer.files);
});
document.addEventListener('paste', (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});

async function introduce() {
  try {
    const { classes, note } = await about();
    const named = classes.length > 12 ? `${classes.slice(0, 12).join(', ')} and ${classes.length - 12} more` : classes.join(', ');
    $('classes').textContent = `It knows ${classes.length} classes: ${named}.`;
    $('where').textContent = note;
    say('');
  } catch (error) {
    if (error.token) { $('token').hidden = false; $('secret').focus(); }
    say(error.message, 'bad');
  }
}

introduce();
