// Baileys accounts talk to each other through wamd-loopback: linking, texts in both directions, a read receipt, spoiled
// ciphertexts, reconnects, a restart with messages that wait. Every text must arrive exactly once, at the other account and
// at both simulated phones.
//
// There are two pairs. `a` and `b` begin by turns: then everything must decrypt at the first attempt. `c` and `d` begin
// at the same moment: then Baileys loses sessions (see ../README.md), and retry receipts must repair that.
//
//   node selftest.mjs [PATH OF wamd-loopback]      (or the environment variable WAMD_LOOPBACK)
//
// Prints one line of JSON and exits with 0 if all went well. Environment: LOG_LEVEL for the clients, KEEP=1 keeps their
// state.

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

/** What the sender knows of a message that arrived. */
const CONFIRMED = ['delivery_ack', 'read']

/** Ciphertexts that the server spoils on purpose. */
const SPOILED = 2

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
    Object.assign(this, { name, number, url, auth, sent: 0, ids: [], received: [], undecryptable: 0 })
    this.receipts = new Map()
    this.start()
  }

  start() {
    this.process = new LineProcess(process.execPath, [CLIENT, '--url', this.url, '--auth', this.auth])
    this.seen = 0
    const collect = () => {
      for (const event of this.process.events.slice(this.seen)) {
        this.seen += 1
        if (event.event === 'sent') this.ids.push(event.id)
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
    await post(http, '/control/scan', { number: this.number, qr })
    await this.linked(http)
  }

  /** Links the account with a code that the simulated phone is told. */
  async linkByCode(http) {
    await this.process.wait(`${this.name} to be ready`, event => event.event === 'qr')
    this.command({ cmd: 'pair', number: this.number })
    const { code } = await this.process.wait(`the code of ${this.name}`, event => event.event === 'code')
    // Baileys tells the code before the server knows of it.
    await until('the code to be known', async () => {
      const response = await request(http, '/control/pair-code', { number: this.number, code })
      check(response.ok || response.status === 404, `/control/pair-code: ${await response.text()}`)
      return response.ok
    })
    await this.linked(http)
  }

  async linked(http) {
    const open = await this.opened()
    const { jid, lid } = await device(http, this)
    check(open.jid === jid, `${this.name} is ${open.jid}, the server says ${jid}`)
    check(open.lid === lid, `${this.name} is ${open.lid}, the server says ${lid}`)
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

/** Two linked accounts, and what each of them must have received. */
class Pair {
  constructor(http, one, other) {
    this.http = http
    this.accounts = [one, other]
    this.expected = new Map([[one, []], [other, []]])
  }

  /** Sends `count` texts each way, one and one. */
  exchange(round, count) {
    const [one, other] = this.accounts
    for (let i = 1; i <= count; i += 1) {
      this.send(one, other, `${round} ${i}`)
      this.send(other, one, `${round} ${i}`)
    }
  }

  send(from, to, what) {
    const text = `${from.name} to ${to.name}: ${what}`
    this.expected.get(to).push(text)
    from.send(to, text)
  }

  /** A text of the simulated phone of `from`, which goes to its companion, too. */
  async sendFromPhone(from, to) {
    const text = `phone of ${from.name} to ${to.name}`
    this.accounts.forEach(account => this.expected.get(account).push(text))
    await post(this.http, '/control/messages', { number: from.number, to: `${to.number}@s.whatsapp.net`, text })
  }

  async settled() {
    await Promise.all(this.accounts.map(account => arrived(account, this.expected.get(account))))
  }

  /** Everything arrived once, at the companions and at the phones; nothing waits; all is confirmed. */
  async check() {
    for (const account of this.accounts) {
      checkOnce(account.name, account.counts(), this.expected.get(account))
      const { messages } = await post(this.http, '/control/received', { number: account.number })
      const all = new Set([...this.expected.values()].flat())
      const others = [...all].filter(text => !text.startsWith(`phone of ${account.name} `))
      checkOnce(`the phone of ${account.name}`, tally(messages.map(message => message.text)), others)
      const { queued } = await device(this.http, account)
      check(queued === 0, `${queued} stanzas still wait for ${account.name}`)
      const confirmed = account.ids.filter(id => CONFIRMED.includes(account.receipts.get(id))).length
      check(confirmed === account.sent, `${confirmed} of ${account.sent} messages of ${account.name} are confirmed`)
    }
  }

  get undecryptable() {
    return this.accounts.reduce((sum, account) => sum + account.undecryptable, 0)
  }

  get texts() {
    return [...this.expected.values()].flat().length
  }
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
  const accounts = ['a', 'b', 'c', 'd'].map(
    (name, index) => new Account(name, `1555000000${index + 1}`, listening, join(directory, name))
  )
  const [a, b, c, d] = accounts
  await Promise.all([a.link(http), b.link(http), c.link(http), d.linkByCode(http)])
  const linkedMs = Date.now() - started

  const calm = new Pair(http, a, b)
  const crossing = new Pair(http, c, d)
  await Promise.all([converse(calm, a, b), cross(crossing)])
  await new Promise(resume => setTimeout(resume, SETTLE_MS))

  await calm.check()
  await crossing.check()
  await Promise.all(accounts.map(account => account.quit()))
  await server.stop()
  return {
    ok: true,
    texts: calm.texts + crossing.texts,
    retried: calm.undecryptable - SPOILED,
    crossing_retried: crossing.undecryptable,
    linked_ms: linkedMs,
    total_ms: Date.now() - started
  }
}

async function converse(pair, a, b) {
  await byTurns(pair, 'by turns', 5)
  check(pair.undecryptable === 0, `a and b could not decrypt ${pair.undecryptable} messages at the first attempt`)
  await markRead(a, b)
  await spoiled(pair, a, b)
  await cutOff(pair, b)

  pair.exchange('linked', 5)
  await pair.settled()

  await a.reconnect()
  await b.reconnect()
  pair.exchange('reconnected', 5)
  await pair.settled()

  // A new process with the same directory finds what came in the meantime.
  await a.quit()
  for (let i = 1; i <= 3; i += 1) pair.send(b, a, `while away ${i}`)
  await until('the queue of a', async () => (await device(pair.http, a)).queued >= 3)
  a.start()
  await a.opened()
  pair.exchange('restarted', 2)
  await pair.settled()

  // The simulated phones encrypt with the Signal code of this project.
  await pair.sendFromPhone(a, b)
  await pair.sendFromPhone(b, a)
  await pair.settled()
}

async function byTurns(pair, round, count) {
  const [one, other] = pair.accounts
  for (let i = 1; i <= count; i += 1) {
    pair.send(one, other, `${round} ${i}`)
    await pair.settled()
    pair.send(other, one, `${round} ${i}`)
    await pair.settled()
  }
}

/** The reader reads the first message, and its author hears of it. */
async function markRead(author, reader) {
  const { id, key } = reader.received[0]
  reader.command({ cmd: 'read', key })
  await until('the read receipt', () => author.receipts.get(id) === 'read', author.process.wakes)
}

/** A text whose ciphertext the server spoils twice: `to` asks for it again, the second time with fresh keys. */
async function spoiled(pair, from, to) {
  const before = to.undecryptable
  const { jid } = await device(pair.http, to)
  await post(pair.http, '/control/faults', { fault: 'tamper_next', jid, count: SPOILED })
  pair.send(from, to, 'spoiled')
  await pair.settled()
  const noticed = to.undecryptable - before
  check(noticed === SPOILED, `${to.name} noticed ${noticed} spoiled messages, not ${SPOILED}`)
}

/** The server ends the connection of an account, which then connects again. */
async function cutOff(pair, account) {
  const start = account.process.events.length
  await post(pair.http, '/control/disconnect', { jid: (await device(pair.http, account)).jid, code: 503 })
  const { status } = await account.process.wait('the cut', event => event.event === 'close', start)
  check(status === 503, `${account.name} was cut off with ${status}, not 503`)
  account.command({ cmd: 'reconnect' })
  await account.opened(start)
}

async function cross(pair) {
  pair.exchange('at once', 5)
  await pair.settled()
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
  const response = await request(http, path, body)
  const answer = await response.json()
  check(response.ok, `${path}: ${JSON.stringify(answer)}`)
  return answer
}

function request(http, path, body) {
  return fetch(http + path, { method: 'POST', body: JSON.stringify(body) })
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
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => fail(new Error(`ended by ${signal}`)))
run(directory).then(finish, fail)
