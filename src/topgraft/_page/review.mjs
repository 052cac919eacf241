// One person labels photos: a key a class. The server holds everything; this page shows what it says.
const $ = (id) => document.getElementById(id);
const KEYS = '123456789abcdefghijklmnopqrstuvwxyz';
const MOST = 60; // classes that have a button; others are found by name
const percent = (p) => `${Math.round(100 * p)} %`;
let shown = null; // what the server said last
let busy = false; // a press that comes before the answer to the last one would be about another photo

function say(text, kind = '') {
  $('status').textContent = text;
  $('status').className = kind;
}

async function ask(path, words) {
  const options = words && {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(words),
  };
  let found;
  try {
    found = await fetch(`review/${path}`, options);
  } catch {
    throw new Error('The server does not answer. Is `topgraft review` still running? What you said before is kept.');
  }
  const said = await found.json();
  if (!found.ok) throw new Error(typeof said.detail === 'string' ? said.detail : 'That was not understood. Reload the page.');
  return said;
}

async function act(path, words, heard) {
  if (busy) return;
  busy = true;
  try {
    show(await ask(path, words));
    say(heard(), 'heard');
  } catch (error) {
    say(error.message, 'bad');
  } finally {
    busy = false;
  }
}

const next = () => (shown.photo ? `Next: ${shown.photo.name}. ${shown.photo.why}` : 'All done.');
const decide = (decision, label = '', photos = [shown.photo.key]) => act(
  'decisions', { photos, decision, label },
  () => `${photos.length > 1 ? `${photos.length} photos: ` : ''}${label || (decision === 'none' ? 'no class' : 'skipped')}. ${next()}`,
);
const undo = () => act('undo', {}, () => `Taken back. ${next()}`);

const source = (key, side) => `review/photos/${key}?side=${side}`;

function thumb({ key, name, label }, side = 200) {
  return Object.assign(document.createElement('img'), { src: source(key, side), alt: label ? `${name}, ${label}` : name });
}

function class_button(name, number) {
  const { chances, label } = shown.photo;
  const button = document.createElement('button');
  button.type = 'button';
  button.className = name === label ? 'now' : '';
  const key = KEYS[number] ?? '';
  const put = (tag, className, textContent) => button.append(Object.assign(document.createElement(tag), { className, textContent }));
  if (key) { put('kbd', '', key); button.setAttribute('aria-keyshortcuts', key); } else put('span', '', '');
  put('span', 'name', name === label ? `${name} (now)` : name);
  put('span', 'chance', chances[name] === undefined ? '' : percent(chances[name]));
  button.addEventListener('click', () => decide('label', name));
  return button;
}

function show(state) {
  shown = state;
  const { photo, alike, classes } = state;
  $('progress').textContent = `${state.done} done, ${state.left} to go. Everything is saved as you go.`;
  $('photo').hidden = !photo;
  $('end').hidden = Boolean(photo);
  close_find();
  if (photo) {
    $('picture').src = source(photo.key, 1200);
    $('picture').alt = photo.name;
    $('name').textContent = photo.name;
    $('why').textContent = photo.label ? `Labelled ${photo.label}. ${photo.why}` : 'No label yet.';
    $('beside').hidden = !photo.beside.length;
    $('beside').replaceChildren(...photo.beside.map((other) => {
      const figure = document.createElement('figure');
      figure.append(thumb(other), Object.assign(document.createElement('figcaption'), { textContent: other.label }));
      return figure;
    }));
    $('classes').replaceChildren(...classes.slice(0, MOST).map(class_button));
    $('names').replaceChildren(...classes.map((name) => Object.assign(document.createElement('option'), { value: name })));
    // A press on what had the focus a moment ago must not go to nowhere.
    if (document.activeElement === document.body) $('name').focus({ preventScroll: true });
    for (const key of state.ahead) new Image().src = source(key, 1200);
  } else {
    $('table').textContent = state.table;
    $('command').textContent = state.command;
  }
  $('undo').disabled = $('back').disabled = !state.last;
  $('alike').hidden = !alike;
  if (alike) {
    $('same').textContent = `${alike.photos.length} like the last one: ${alike.label}, too?`;
    $('others').replaceChildren(...alike.photos.map((other) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.dataset.key = other.key;
      button.setAttribute('aria-pressed', 'true');
      button.append(thumb(other));
      button.addEventListener('click', () => {
        button.setAttribute('aria-pressed', String(button.getAttribute('aria-pressed') !== 'true'));
      });
      return button;
    }));
  }
}

function all() {
  const marked = [...$('others').querySelectorAll('[aria-pressed="true"]')].map((button) => button.dataset.key);
  if (marked.length) decide('label', shown.alike.label, marked);
  else say('No photo is marked.', 'bad');
}

function open_find() {
  $('find').hidden = false;
  $('word').value = '';
  $('word').focus();
}

function close_find() {
  if ($('find').hidden) return;
  $('find').hidden = true;
  $('name').focus({ preventScroll: true });
}

$('none').addEventListener('click', () => decide('none'));
$('skip').addEventListener('click', () => decide('skip'));
$('undo').addEventListener('click', undo);
$('back').addEventListener('click', undo);
$('new').addEventListener('click', open_find);
$('leave').addEventListener('click', close_find);
$('all').addEventListener('click', all);
$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const word = $('word').value.trim();
  const known = shown.classes.find((name) => name.toLowerCase() === word.toLowerCase());
  decide('label', known ?? word);
});
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !shown) return;
  if (event.target === $('word')) {
    if (event.key === 'Escape') close_find();
    return;
  }
  // Space and Enter belong to a button that has the focus, as everywhere.
  const on_button = event.target instanceof HTMLButtonElement;
  const number = KEYS.indexOf(event.key.toLowerCase());
  const does = {
    Backspace: shown.last && undo,
    ' ': !on_button && shown.photo && (() => decide('skip')),
    Enter: !on_button && shown.alike && all,
    0: shown.photo && (() => decide('none')),
    '/': shown.photo && open_find,
  }[event.key] || (number >= 0 && event.key.length === 1 && shown.photo && shown.classes[number]
    && (() => decide('label', shown.classes[number])));
  if (!does) return;
  event.preventDefault();
  if (!event.repeat) does(); // a key held down is one press
});

ask('state').then(show, (error) => say(error.message, 'bad'));
