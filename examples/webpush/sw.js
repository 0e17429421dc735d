// The service worker: it runs when a push arrives, even if no page of the site is open.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", event => event.waitUntil(self.clients.claim()));

self.addEventListener("push", event => {
  // What Bellwire encrypted, and the browser decrypted: title, body, data, and, where the event has them, url and badge.
  const { title, body, url, badge, data } = event.data.json();
  const shown = self.registration.showNotification(title, {
    body,
    // Another attempt at the same delivery replaces the notification, and so does an event that replaces this one.
    tag: data.notice ?? data.delivery,
    data: { ...data, url },
  });
  const numbered = badge === undefined ? undefined : self.navigator.setAppBadge?.(badge).catch(() => {});
  event.waitUntil(Promise.all([shown, numbered]));
});

self.addEventListener("notificationclick", event => {
  event.notification.close();
  const { url } = event.notification.data;
  if (url) event.waitUntil(self.clients.openWindow(url));
});
