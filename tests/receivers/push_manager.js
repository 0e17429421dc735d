// Stands in for the browser's connection to its push service, which needs the internet: PushManager.subscribe() returns a
// subscription at ENDPOINT. Its keys are made in the browser and never leave it; `decrypted` opens a push with them.

const base64url = {
  bytes: text => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), each => each.charCodeAt(0)),
  text: bytes =>
    btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, ""),
};
const CURVE = { name: "ECDH", namedCurve: "P-256" };
let pair, point;
const auth = crypto.getRandomValues(new Uint8Array(16));

PushManager.prototype.subscribe = async function (options) {
  if (!options.userVisibleOnly || base64url.text(new Uint8Array(options.applicationServerKey)) !== KEY) {
    throw new Error("wrong options");
  }
  pair = await crypto.subtle.generateKey(CURVE, false, ["deriveBits"]);
  point = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const keys = { p256dh: base64url.text(point), auth: base64url.text(auth) };
  return { toJSON: () => ({ endpoint: ENDPOINT, expirationTime: null, keys }) };
};

async function derived(secret, salt, info, length) {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const parameters = { name: "HKDF", hash: "SHA-256", salt, info };
  return new Uint8Array(await crypto.subtle.deriveBits(parameters, key, 8 * length));
}

function joined(...parts) {
  const encoder = new TextEncoder();
  const all = parts.map(part => (typeof part === "string" ? encoder.encode(part) : part));
  return new Uint8Array(all.flatMap(part => [...part]));
}

// RFC 8188 §2: salt (16), record size (4), length of the key id (1), key id: here the sender's public key (RFC 8291 §4).
window.decrypted = async function (push) {
  const body = base64url.bytes(push);
  const salt = body.slice(0, 16);
  const size = new DataView(body.buffer).getUint32(16);
  const sender = body.slice(21, 21 + body[20]);
  const record = body.slice(21 + body[20]);
  if (record.length > size) throw new Error("more than one record");
  const other = await crypto.subtle.importKey("raw", sender, CURVE, false, []);
  const shared = await crypto.subtle.deriveBits({ name: "ECDH", public: other }, pair.privateKey, 256);
  const secret = await derived(shared, auth, joined("WebPush: info\0", point, sender), 32);
  const key = await derived(secret, salt, joined("Content-Encoding: aes128gcm\0"), 16);
  const iv = await derived(secret, salt, joined("Content-Encoding: nonce\0"), 12);
  const aes = await crypto.subtle.importKey("raw", key, "AES-GCM", false, ["decrypt"]);
  const padded = new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, aes, record));
  const end = padded.findLastIndex(each => each !== 0);
  if (padded[end] !== 2) throw new Error("the last record does not end with 2");
  return new TextDecoder("utf-8", { fatal: true }).decode(padded.slice(0, end));
};
