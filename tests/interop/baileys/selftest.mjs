// Two Baileys accounts talk to each other through wamd-loopback: QR linking, texts in both directions, reconnects, a restart
// with messages that wait. Every text must arrive exactly once, at the other account and at both simulated phones.
//
//   node selftest.mjs [PATH OF wamd-loopback]      (or the environment variable WAMD_LOOPBACK)
//
// Prints one line of JSON and exits with 0 if all went well. Environment: LOG_LEVEL for the clients, KEEP=1 keeps their state.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
const LOOPBACK =
  process.argv[2] ?? process.env.WAMD_LOOPBACK ?? resolve(here, '../../../target/debug/wamd-loopback')
const CLIENT = join(here, 'client.mjs')

/** For the whole run, and for a single step of it. */
const RUN_LIMIT_MS = 150_000
const STEP_LIMIT_MS = 30_000
/** How long to wait for copies that must not come. */
const SETTLE_MS = 1_500

const children = new Set()

/** A process that prints one JSON value per line. */
class LineProcess {
  constructor(program, args) {
    this.events = []
    this.wakes = new Set()
    this.child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.ended = once(this.child, 'exit')
    children.add(this.child)
    this.child.once('exit', () => children.delete(this.child))
    this.child.once('error', error => fail(error))
    createInterface({ input: this.child.stdout }).on('line', line => {
      this.events.push(JSON.parse(line))
      this.wakes.forEach(wake => wake())
    })
  }

  /** The first event at or after `start` that fits. */
  async wait(what, fits, start = 0) {
    return until(what, () => this.events.slice(start).find(fits), this.wakes)
  }

  async stop() {
    this.child.kill('SIGTERM')
    await this.ended
  }
}

class Account {
  constructor(name, number, url, auth) {
    Object.assign(this, { name, number, url, auth, sent: 0, received: [], undecryptable: 0, receipts: new Map() })
    this.start()
  }

  start() {
    this.process = new LineProcess(process.execPath, [CLIENT, '--url', this.url, '--auth', this.auth])
    this.seen = 0
    const collect = () => {
      for (const event of this.process.events.slice(this.seen)) {
        this.seen += 1
        if (event.event === 'message') this.received.push(event)
        if (event.event === 'undecryptable') this.undecryptable += 1
        if (event.event === 'error') fail(new Error(`${this.name}: ${event.error}`))
        if (event.event === 'receipt') this.receipts.set(event.id, event.status)
      }
    }
    this.process.wakes.add(collect)
  }

  command(command) {
    this.process.child.stdin.write(JSON.stringify(command) + '\n')
  }

  async opened(start = 0) {
    const open = await this.process.wait(`${this.name} to open`, event => event.event === 'open', start)
    await this.process.wait(`the backlog of ${this.name}`, event => event.event === 'synced', start)
    return open
  }

  /** Links the account with the simulated phone of its number. */
  async link(http) {
    const { qr } = await this.process.wait(`the QR code of ${this.name}`, event => event.event === 'qr')
    const linked = await post(http, '/control/scan', { number: this.number, qr })
    const open = await this.opened()
    check(open.jid === linked.jid, `${this.name} is ${open.jid}, the server says ${linked.jid}`)
    check(open.lid === linked.lid, `${this.name} is ${open.lid}, the server says ${linked.lid}`)
  }

  async reconnect() {
    const start = this.process.events.length
    this.command({ cmd: 'reconnect' })
    await this.process.wait(`${this.name} to hang up`, event => event.event === 'close', start)
    await this.opened(start)
  }

  async quit() {
    this.command({ cmd: 'quit' })
    const [code] = await this.process.ended
    check(code === 0, `${this.name} ended with ${code}`)
  }

  send(to, text) {
    this.command({ cmd: 'send', to: `${to.number}@s.whatsapp.net`, text, ref: this.sent })
    this.sent += 1
  }

  /** Texts with the number of times that each arrived. */
  counts() {
    return tally(this.received.map(message => message.text))
  }
}

/** What each side must have, by text. */
const expected = { a: [], b: [] }

/** Sends `count` texts each way, one and one. */
function exchange(a, b, round, count) {
  for (let i = 1; i <= count; i += 1) {
    sendExpecting(a, b, expected.b, `${round} a to b ${i}`)
    sendExpecting(b, a, expected.a, `${round} b to a ${i}`)
  }
}

function sendExpecting(from, to, list, text) {
  list.push(text)
  from.send(to, text)
}

async function arrived(account, texts) {
  await until(
    `the texts of ${account.name}`,
    () => texts.every(text => account.counts().has(text)),
    account.process.wakes,
    () => `missing: ${texts.filter(text => !account.counts().has(text)).join(', ')}`
  )
}

async function run(directory) {
  const started = Date.now()
  const server = new LineProcess(LOOPBACK, ['--listen', '127.0.0.1:0'])
  const { listening, http } = await server.wait('the server', event => event.listening !== undefined)
  const a = new Account('a', '15550000001', listening, join(directory, 'a'))
  const b = new Account('b', '15550000002', listening, join(directory, 'b'))
  await Promise.all([a.link(http), b.link(http)])
  const linkedMs = Date.now() - started

  const settled = () => Promise.all([arrived(a, expected.a), arrived(b, expected.b)])
  exchange(a, b, 'linked', 5)
  await settled()

  await a.reconnect()
  await b.reconnect()
  exchange(a, b, 'reconnected', 5)
  await settled()

  // A new process with the same directory finds what came in the meantime.
  await a.quit()
  for (let i = 1; i <= 3; i += 1) sendExpecting(b, a, expected.a, `offline b to a ${i}`)
  await until('the queue of a', async () => (await device(http, a)).queued >= 3)
  a.start()
  await a.opened()
  exchange(a, b, 'restarted', 2)
  await settled()

  // The simulated phones encrypt with this project's own Signal code.
  const phoneText = 'phone of a to b'
  expected.b.push(phoneText)
  expected.a.push(phoneText)
  await post(http, '/control/messages', { number: a.number, to: `${b.number}@s.whatsapp.net`, text: phoneText })
  await settled()

  await new Promise(resume => setTimeout(resume, SETTLE_MS))
  for (const [account, texts] of [[a, expected.a], [b, expected.b]]) {
    checkOnce(account.name, account.counts(), texts)
    check(account.undecryptable === 0, `${account.name} could not decrypt ${account.undecryptable} messages`)
    const mirror = account.received.filter(message => message.fromMe).map(message => message.text)
    check(mirror.join() === (account === a ? phoneText : ''), `${account.name} has own texts: ${mirror.join()}`)
    const { messages } = await post(http, '/control/received', { number: account.number })
    const all = [...expected.a, ...expected.b].filter(text => text !== phoneText)
    const phone = account === b ? [...all, phoneText] : all
    checkOnce(`the phone of ${account.name}`, tally(messages.map(message => message.text)), phone)
    const { queued } = await device(http, account)
    check(queued === 0, `${queued} stanzas still wait for ${account.name}`)
    // The receipt of the other side's companion or phone, whichever came first.
    const confirmed = [...account.receipts.values()].filter(status => status === 'delivery_ack').length
    check(confirmed === account.sent, `${confirmed} of ${account.sent} messages of ${account.name} are confirmed`)
  }
  await Promise.all([a.quit(), b.quit()])
  await server.stop()
  return { ok: true, texts: expected.a.length + expected.b.length, linked_ms: linkedMs, total_ms: Date.now() - started }
}

function tally(texts) {
  const counts = new Map()
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1)
  return counts
}

function checkOnce(who, counts, texts) {
  const wrong = texts.filter(text => counts.get(text) !== 1).map(text => `"${text}" ${counts.get(text) ?? 0} times`)
  const strange = [...counts.keys()].filter(text => !texts.includes(text))
  check(wrong.length === 0 && strange.length === 0, `${who} has ${wrong.join(', ')}; unexpected: ${strange.join(', ')}`)
}

function check(holds, message) {
  if (!holds) throw new Error(message)
}

async function device(http, account) {
  const response = await fetch(`${http}/control/accounts`)
  const { accounts } = await response.json()
  return accounts.find(one => one.number === account.number).devices[0]
}

async function post(http, path, body) {
  const response = await fetch(http + path, { method: 'POST', body: JSON.stringify(body) })
  const answer = await response.json()
  check(response.ok, `${path}: ${JSON.stringify(answer)}`)
  return answer
}

/** Waits until `probe` gives something: asks again after each event of a process, or all 50 ms if there are none. */
async function until(what, probe, wakes, detail = () => '') {
  const deadline = Date.now() + STEP_LIMIT_MS
  for (;;) {
    const found = await probe()
    if (found) return found
    check(Date.now() < deadline, `waited ${STEP_LIMIT_MS} ms for ${what}; ${detail()}`)
    await new Promise(resume => {
      const wake = () => {
        clearTimeout(timer)
        wakes?.delete(wake)
        resume()
      }
      const timer = setTimeout(wake, wakes ? 1_000 : 50)
      wakes?.add(wake)
    })
  }
}

function finish(summary) {
  for (const child of children) child.kill('SIGKILL')
  if (!process.env.KEEP) rmSync(directory, { recursive: true, force: true })
  process.stdout.write(JSON.stringify(summary) + '\n', () => process.exit(summary.ok ? 0 : 1))
}

function fail(error) {
  finish({ ok: false, error: error.message })
}

const directory = mkdtempSync(join(tmpdir(), 'wamd-interop-'))
setTimeout(() => fail(new Error(`the run took longer than ${RUN_LIMIT_MS} ms`)), RUN_LIMIT_MS).unref()
run(directory).then(finish, fail)
