// A photo becomes an answer at the server that this page came from.
export const several_at_once = 4;
export const where = true;

const pause = (seconds) => new Promise((done) => { setTimeout(done, 1000 * seconds); });

async function call(path, options = {}) {
  const token = sessionStorage.getItem('token');
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  for (let tries = 0; ; tries += 1) {
    let found;
    try {
      found = await fetch(path, { ...options, headers });
    } catch {
      throw Object.assign(new Error('The server does not answer. Is it still running?'), { fatal: true });
    }
    if (found.status === 401) {
      const text = token ? 'That is not the token.' : 'Give the token that the server was started with.';
      sessionStorage.removeItem('token');
      throw Object.assign(new Error(text), { fatal: true, token: true });
    }
    if (found.status !== 503 || tries === 20) return found;
    await pause(Number(found.headers.get('Retry-After')) || 1);
  }
}

export async function about() {
  const { classes } = await (await call('card')).json();
  return { classes, note: 'Photos go to this server, and nowhere else. It keeps none.' };
}

export async function ask(blob, name, { looked = false }) {
  const form = new FormData();
  form.append('photos', blob, name);
  const found = await call(looked ? 'predict?looked=true' : 'predict', { method: 'POST', body: form });
  const said = await found.json();
  if (Array.isArray(said)) return said[0];
  throw new Error(said.detail ?? `the server said ${found.status}`);
}
