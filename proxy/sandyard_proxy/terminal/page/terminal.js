// The web terminal: one WebSocket is one shell; the shell ends with the page.
'use strict'

const KEY = 'DAYTONA_SANDBOX_AUTH_KEY'
const token = new URLSearchParams(location.search).get(KEY)
if (token) history.replaceState(null, '', location.pathname) // the address bar is copied and shared; a credential is not for that

const terminal = new Terminal({ cursorBlink: true, scrollback: 10000 })
const fit = new FitAddon.FitAddon()
const encoder = new TextEncoder()
let socket = null

function connect() {
  const query = new URLSearchParams({ cols: terminal.cols, rows: terminal.rows })
  if (token) query.set(KEY, token)
  const made = new WebSocket(`${location.protocol.replace('http', 'ws')}//${location.host}/ws?${query}`)
  made.onmessage = (event) => terminal.write(event.data)
  made.onclose = (event) => {
    socket = null
    terminal.write(`\r\n\x1b[2m[${why(event)}; press Enter for a new shell]\x1b[0m\r\n`)
  }
  socket = made
}

function why(event) {
  try {
    const said = JSON.parse(event.reason)
    return 'exitCode' in said ? `the shell ended with exit code ${said.exitCode}` : said.error
  } catch {
    return `the connection closed (${event.code})`
  }
}

function send(data) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(data)
}

terminal.loadAddon(fit)
terminal.open(document.getElementById('terminal'))
fit.fit()
// Typed text goes as bytes: only a resize is sent as text, so that nothing pasted is ever taken for one.
terminal.onData((text) => {
  if (socket) send(encoder.encode(text))
  else if (text === '\r') connect()
})
terminal.onBinary((text) => send(Uint8Array.from(text, (character) => character.charCodeAt(0))))
terminal.onResize(({ cols, rows }) => send(JSON.stringify({ rows, cols })))
addEventListener('resize', () => fit.fit())
terminal.focus()
connect()
