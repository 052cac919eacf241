// Keeps the page's files, so that it opens without a network; a new export has a new name and replaces them.
// All pages of one origin share their caches, so the name begins with where this page lies.
const OWN = `topgraft ${self.registration.scope} `;
const NAME = `${OWN}{{ digest }}`;
const FILES = {{ files }};

self.addEventListener('install', (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(FILES)));
});
self.addEventListener('activate', (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith(OWN) && name !== NAME) await caches.delete(name);
    await self.clients.claim();
  })());
});
self.addEventListener('fetch', (event) => {
  if (event.request.method !== 'GET') return;
  event.respondWith(caches.open(NAME).then(async (cache) => (await cache.match(event.request)) ?? fetch(event.request)));
});
