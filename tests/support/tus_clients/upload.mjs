// Sends one file by tus-js-client as the options in argv[2] say, and prints what happens, one JSON object a line.
import {createReadStream, statSync} from "node:fs";
import {Readable} from "node:stream";
import {DefaultHttpStack, Upload} from "tus-js-client";

const given = JSON.parse(process.argv[2]);
const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
let place = null;
// A stream that is no file, as it knows no length.
const source = given.deferred ? Readable.from(createReadStream(given.file)) : createReadStream(given.file);
const upload = new Upload(source, {
  endpoint: given.endpoint,
  uploadUrl: given.uploadUrl,
  headers: given.headers ?? {},
  metadata: given.metadata,
  chunkSize: given.chunkSize ?? 1024 * 1024,
  uploadSize: given.deferred || given.parallel ? null : statSync(given.file).size,
  uploadLengthDeferred: given.deferred ?? false,
  uploadDataDuringCreation: given.withCreation ?? false,
  parallelUploads: given.parallel ?? 1,
  overridePatchMethod: given.override ?? false,
  retryDelays: Array(given.retries ?? 40).fill(100),
  httpStack: new DefaultHttpStack({}),
  onUploadUrlAvailable: () => tell({url: upload.url}),
  onProgress: (sent, total) => tell({sent, total}),
  onAfterResponse: (request, response) => {
    place = response.getHeader("Content-Location") ?? place;
    if (response.getStatus() >= 400) tell({status: response.getStatus()});
  },
  onChunkComplete: (size, accepted) => {
    tell({accepted});
    if (given.endAfter && accepted >= given.endAfter)
      upload.abort(true).then(() => { tell({ended: upload.url}); process.exit(0); });
  },
  onSuccess: () => tell({done: place, url: upload.url}),
  onError: (error) => { tell({failed: String(error.message), status: error.originalResponse?.getStatus() ?? 0}); process.exit(1); },
});
upload.start();
