"""HTTP/2 of a sandbox with secrets, from inside, against a host of the test's own."""

import json
from typing import Any

import pytest

from tests.runner.egress.conftest import PLACEHOLDER, VALUE, Box
from tests.runner.egress.test_http1 import told

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="module")]

NODE = """cat >/tmp/client.mjs <<'END'
import http from 'node:http'; import http2 from 'node:http2'; import tls from 'node:tls'; import fs from 'node:fs';
const token = process.env.TOKEN, [host, port] = process.env.http_proxy.replace('http://', '').split(':');
const connected = target => new Promise((ok, no) => {
  const asking = http.request({host, port, method: 'CONNECT', path: `www.example.com:${target}`}).end();
  asking.on('error', no).on('connect', (_, socket) => {
    const ca = fs.readFileSync(process.env.SSL_CERT_FILE), options = {socket, servername: 'www.example.com', ca};
    const secure = tls.connect({...options, ALPNProtocols: ['h2']}, () => {
      const session = http2.connect('https://www.example.com', {createConnection: () => secure});
      session.on('error', no);
      ok(session);
    }).on('error', no);
  });
});
const ask = (session, path, headers = {}, write = stream => stream.end()) => new Promise((ok, no) => {
  const stream = session.request({':path': path, authorization: `Bearer ${token}`, ...headers});
  const seen = {bytes: 0, text: ''};
  stream.on('response', head => Object.assign(seen, {status: head[':status'], head}));
  stream.on('trailers', trailers => Object.assign(seen, {trailers}));
  stream.on('data', data => { seen.bytes += data.length; seen.text = (seen.text + data).slice(0, 9000); });
  // Not at its end: trailers that came with it may be told a moment later.
  stream.on('close', () => ok(seen)).on('error', error => ok({error: error.code + ' ' + error.message}));
  write(stream, seen);
});
const say = what => console.log(JSON.stringify(what));
setTimeout(() => { console.log('too late'); process.exit(1); }, 120_000);
%s
process.exit(0);
END
node /tmp/client.mjs
"""


async def node(box: Box, program: str) -> Any:
    """What a program of Node.js says, as JSON."""
    if (await box.sh("node --version"))[0] != 0:
        pytest.skip("Node.js is not installed")
    code, said = await box.sh(NODE % program)
    assert code == 0, said
    return json.loads(said)


# Prior knowledge of a host that speaks HTTP/1.1 is no case: newer curls offer it nothing but HTTP/2 then.
@pytest.mark.parametrize(
    ("wanted", "port", "version"),
    [("--http2", 443, "2"), ("--http2", 444, "1.1"), ("--http2-prior-knowledge", 443, "2")],
)
async def test_a_client_speaks_with_us_what_the_host_speaks(box: Box, wanted: str, port: int, version: str) -> None:
    command = f'curl -sS -m 120 {wanted} -u "me:$TOKEN" -H "X: $TOKEN" -d "key=$TOKEN"'
    code, said = await box.sh(f'{command} "https://www.example.com:{port}/echo?q=$TOKEN"')
    assert code == 0, said
    seen = told(said)
    headers = dict(seen["headers"])
    assert (seen["version"], seen["path"], seen["body"]) == (version, f"/echo?q={VALUE}", f"key={VALUE}")
    assert (headers["x"], headers["authorization"]) == (VALUE, "Basic bWU6aHVzaC1odXNo")
    assert PLACEHOLDER not in said


async def test_http2_in_clear_passes_a_tunnel(box: Box) -> None:
    command = 'curl -sS -m 120 --http2-prior-knowledge -p -H "X: $TOKEN" http://www.example.com/echo'
    seen = told((await box.sh(command))[1])
    assert (seen["version"], dict(seen["headers"])["x"]) == ("2", VALUE)


async def test_both_sides_talk_at_a_time_and_trailers_end_it(box: Box) -> None:
    program = """
const session = await connected(443), heard = [];
const seen = await ask(session, '/talk', {':method': 'POST', 'content-type': 'text/plain'}, (stream, seen) => {
  const pieces = ['one', 'two', token.slice(0, 5), token.slice(5) + '!'];
  stream.on('response', () => stream.write(pieces.shift()));
  stream.on('data', () => {
    heard.push(seen.text);
    if (pieces.length > 1) stream.write(pieces.shift());
    if (pieces.length === 1 && !seen.waits) seen.waits = setTimeout(() => stream.end(pieces.shift()), 500);
  });
});
say([heard[0], heard[1], seen.text, seen.trailers['x-trailer']]);
"""
    # The first half of the placeholder waits with us for the second, which the client's timer sends.
    first, second, whole, trailer = await node(box, program)
    assert (first, second, whole, trailer) == ("one", "onetwo", f"onetwo{VALUE}!", "last")


async def test_what_grpc_sends_passes_but_for_its_metadata(box: Box) -> None:
    program = """
const session = await connected(443), body = Buffer.from(`\\0\\0\\0\\0${String.fromCharCode(token.length)}${token}`);
const headers = {':method': 'POST', 'content-type': 'application/grpc', te: 'trailers'};
const seen = await ask(session, '/echo', headers, stream => stream.end(body));
const alone = await ask(session, '/alone', headers, stream => stream.end(body));
say([JSON.parse(seen.text), alone.head['grpc-status'], alone.bytes]);
"""
    seen, status, size = await node(box, program)
    headers = dict(seen["headers"])
    assert (headers["authorization"], headers["te"]) == (f"Bearer {VALUE}", "trailers")
    assert seen["body"].endswith(PLACEHOLDER)  # its length is told before it
    assert (status, size) == ("5", 0)


async def test_large_answers_and_bodies_go_side_by_side(box: Box) -> None:
    program = """
const session = await connected(443);
const down = [1, 2, 3].map(() => ask(session, '/big?5000000'));
const up = [1, 2].map(() => ask(session, '/echo', {':method': 'POST'}, stream => stream.end('y'.repeat(5000000))));
say([(await Promise.all(down)).map(seen => seen.bytes),
  (await Promise.all(up)).map(seen => JSON.parse(seen.text).length)]);
"""
    assert await node(box, program) == [[5_000_000] * 3, [5_000_000] * 2]


async def test_a_host_that_leaves_ends_what_it_has_begun(box: Box) -> None:
    program = """
const session = await connected(443);
const first = await ask(session, '/leave');
await new Promise(ok => setTimeout(ok, 200));
const second = await ask(await connected(443), '/echo');
say([first.status, first.trailers['x-trailer'], second.status]);
"""
    assert await node(box, program) == [200, "last", 200]


async def test_a_client_that_insists_on_http2_is_told_as_by_the_host_itself(box: Box) -> None:
    program = "say(await connected(444).then(session => ask(session, '/echo')).catch(error => ({error: error.code})));"
    assert (await node(box, program))["error"]


async def test_a_host_that_cannot_be_had_is_told_of_in_http2(box: Box) -> None:
    code, said = await box.sh(
        'curl -sS -m 120 --http2 -w "%{http_code}" -H "X: $TOKEN" https://www.example.com:445/echo'
    )
    assert (code, "www.example.com:445 does not answer" in said, said.endswith("502")) == (0, True, True)
