// Calls a target all the time, four calls at once, until standard input ends; then says how that went.
'use strict';
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const PAUSE_MS = 4;
const SESSIONS = 60;

const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
const errors = {};
let calls = 0;
let running = 0;
let stop = false;

function call(number, waitForReady, done) {
  const metadata = new grpc.Metadata({ waitForReady });
  metadata.set('x-session', `session-${number % SESSIONS}`);
  const options = { deadline: Date.now() + (waitForReady ? 30000 : 10000) };
  const same = (bytes) => bytes;
  client.makeUnaryRequest('/test.Backend/Call', same, same, Buffer.alloc(0), metadata, options, done);
}

function work(number) {
  if (stop) {
    running -= 1;
    if (running === 0) end();
    return;
  }
  call(number, false, (error) => {
    calls += 1;
    if (error) errors[error.message] = (errors[error.message] || 0) + 1;
    setTimeout(() => work(number + 1), PAUSE_MS);
  });
}

function end() {
  process.stdout.write(JSON.stringify({ calls, errors }) + '\n', () => process.exit(0));
}

call(0, true, (error) => {
  if (error) throw error;
  console.log('ready');
  for (running = 0; running < 4; running += 1) work(running * 15);
});
process.stdin.on('end', () => { stop = true; });
process.stdin.resume();
