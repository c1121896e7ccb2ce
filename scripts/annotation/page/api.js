// Requests to the server, and its stream of events. All addresses are relative, because the page's own is secret.

/** An error response, or no response (status 0). The message is a sentence for the user. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(method, address, { body, json, revision, signal, priority } = {}) {
  const headers = {};
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (revision !== undefined) headers["If-Match"] = `"${revision}"`;
  let response;
  try {
    body = json === undefined ? body : JSON.stringify(json);
    response = await fetch(`api/${address}`, { method, body, headers, signal, priority });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "The server does not answer.");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new ServerError(response.status, answer.error ?? `The server answered with the status ${response.status}.`);
}

/** The whole state of the project. */
export const getState = async () => (await request("GET", "state")).json();

/** A frame as an ImageBitmap. */
export async function getFrame(number, signal, priority) {
  const response = await request("GET", `frames/${number}`, { signal, priority });
  return createImageBitmap(await response.blob());
}

/** The mask of a frame: ids (Uint8Array, row by row), kind ("none", "propagated" or "annotated") and revision. */
export async function getMask(number, signal, priority) {
  const response = await request("GET", `masks/${number}`, { signal, priority });
  return {
    number,
    ids: new Uint8Array(await response.arrayBuffer()),
    kind: response.headers.get("X-Kind"),
    revision: Number(response.headers.get("ETag").replaceAll('"', "")),
  };
}

/**
 * Make a mask the annotation of its frame, or again what the network has propagated.
 * @param mask number, ids, kind ("annotated" or "propagated"), revision, and uncertainty (NaN if unknown).
 * @returns the new revision; status 412 where `revision` is outdated.
 */
export async function putMask({ number, ids, kind, revision, uncertainty }) {
  const bits = Number.isNaN(uncertainty) ? "" : `&uncertainty=${uncertainty.toFixed(6)}`;
  const address = `masks/${number}?kind=${kind}${bits}`;
  return (await (await request("PUT", address, { body: ids, revision })).json()).revision;
}

/** Remove the mask of a frame. Returns the new revision; status 412 where `revision` is outdated. */
export const deleteMask = async (number, revision) =>
  (await (await request("DELETE", `masks/${number}`, { revision })).json()).revision;

/** The address of a small picture of a frame. */
export const thumbnail = (number) => `api/thumbnails/${number}`;

/** Make an object. Returns the object: id, name, colour, visible. */
export const addObject = async () => (await request("POST", "objects", { json: {} })).json();

/** Change an object's name, colour or visibility. */
export const changeObject = (id, changes) => request("PATCH", `objects/${id}`, { json: changes });

/** Remove an object from all masks. */
export const deleteObject = (id) => request("DELETE", `objects/${id}`);

const bytes = async (response) => new Uint8Array(await (await response).arrayBuffer());

/** Segment the object in a box (left, top, right, bottom; whole pixels). Returns 1 for pixels of the object, else 0. */
export const cutBox = (number, box, signal) => bytes(request("POST", `cut/${number}/box`, { json: { box }, signal }));

/** Prepare a frame for cuts, so that the first one is fast. */
export const prepareCut = (number) => request("POST", `cut/${number}/prepare`);

/** Correct the mask of an object by strokes. `marks`: see cuts.js. Returns as `cutBox`. */
export const cutMarks = (number, marks, signal) =>
  bytes(request("POST", `cut/${number}/strokes`, { body: marks, signal }));

/** Start to propagate the mask of a frame. `direction`: forward, backward or both; `until`: end or annotation. */
export const propagate = (frame, direction, until) =>
  request("POST", "propagation", { json: { frame, direction, until } });

/** Stop the propagation; settles when nothing runs any more. */
export const stopPropagation = () => request("DELETE", "propagation");

/** Import mask files: for `frame`, or (null) for the frames in their names. Returns descriptions of the masks. */
export async function importMasks(frame, files) {
  const address = frame === null ? "import" : `import/${frame}`;
  const names = Array.from(files, (file) => [file.webkitRelativePath || file.name, file.size]);
  const body = new Blob([JSON.stringify(names), "\n", ...files]);
  return (await request("POST", address, { body })).json();
}

/** Start an export of the selected kinds (masks, overlay, davis, cutout, matte, zip: booleans). */
export const startExport = (kinds) => request("POST", "export", { json: kinds });

/** Stop the export. */
export const stopExport = () => request("DELETE", "export");

const TIMEOUT = 3000; // ms for a lost connection to return

/**
 * Listen to the server's events.
 * @param onEvent is called with each event.
 * @param onOpen is called when the stream opens; after an interruption, events may have been missed.
 * @param onLost is called after `TIMEOUT` without a connection.
 */
export function listen(onEvent, onOpen, onLost) {
  const stream = new EventSource("api/events");
  let timer = 0;
  stream.onmessage = (message) => onEvent(JSON.parse(message.data));
  stream.onopen = () => {
    clearTimeout(timer);
    timer = 0;
    onOpen();
  };
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) onLost();
    else timer ||= setTimeout(onLost, TIMEOUT);
  };
}
