// One Baileys account as a process: commands come as JSON lines on stdin, events leave as JSON lines on stdout.
// The protocol is described in ../README.md. Whatever else Baileys prints goes to stderr.
//
//   node client.mjs --url ws://127.0.0.1:PORT/ws/chat --auth DIR [--registration-id N]
//
// Environment: LOG_LEVEL, a pino level (default `silent`; `trace` shows every stanza).

import { Console } from 'node:console'
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'

// Before the import: the Signal library below Baileys writes to the global console.
globalThis.console = new Console(process.stderr, process.stderr)
const { default: makeWASocket, ...baileys } = await import('baileys')
const { Browsers, DisconnectReason, WAMessageStubType, generateWAMessage, proto } = baileys
const { makeCacheableSignalKeyStore, useMultiFileAuthState } = baileys
const { default: pino } = await import('pino')

/** What this client says it is; a fixed version, because the default one changes with the package. */
const VERSION = [2, 3000, 1045649367]
/** Baileys writes its state while it handles a stanza and offers no way to wait for that. */
const SETTLE_MS = 250

const { values: options } = parseArgs({
  options: { url: { type: 'string' }, auth: { type: 'string' }, 'registration-id': { type: 'string' } }
})
if (!options.url || !options.auth) {
  process.stderr.write('usage: client.mjs --url ws://HOST:PORT/ws/chat --auth DIR\n')
  process.exit(2)
}
mkdirSync(options.auth, { recursive: true })

const logger = pino({ level: process.env.LOG_LEVEL ?? 'silent' }, pino.destination({ dest: 2, sync: true }))
const { state, saveCreds } = await useMultiFileAuthState(options.auth)
// Baileys draws one of 256 registration ids, and 0 is one of them.
if (options['registration-id']) state.creds.registrationId = Number(options['registration-id'])
// With keys straight from the files, the steps of Baileys overlap so much that it uses message keys twice.
const keys = makeCacheableSignalKeyStore(state.keys, logger)
const sent = openSentLog(join(options.auth, 'sent-messages.jsonl'))
let socket = connect()

/** Opens a connection with the account of the directory. */
function connect() {
  const opened = makeWASocket({
    waWebSocketUrl: options.url,
    auth: { creds: state.creds, keys },
    logger,
    version: VERSION,
    browser: Browsers.ubuntu('Chrome'),
    syncFullHistory: false,
    shouldSyncHistoryMessage: () => false,
    markOnlineOnConnect: false,
    emitOwnEvents: false,
    generateHighQualityLinkPreview: false,
    getMessage: async key => sent.find(key.id)
  })
  opened.ev.on('creds.update', saveCreds)
  opened.ev.on('connection.update', update => connectionChanged(opened, update))
  // A closed socket may still hand over what it had received: nothing of that is dropped.
  opened.ev.on('messages.upsert', ({ messages }) => messages.forEach(messageArrived))
  opened.ev.on('messages.update', updates => updates.forEach(({ key, update }) => statusChanged(key, update.status)))
  opened.ev.on('message-receipt.update', updates => updates.forEach(({ key, receipt }) => receiptArrived(key, receipt)))
  return opened
}

function connectionChanged(from, update) {
  if (from !== socket) return
  if (update.qr) emit({ event: 'qr', qr: update.qr })
  if (update.connection === 'open') emit({ event: 'open', jid: from.user?.id, lid: from.user?.lid })
  if (update.receivedPendingNotifications) emit({ event: 'synced' })
  if (update.connection === 'close') {
    const error = update.lastDisconnect?.error
    const status = error?.output?.statusCode ?? null
    const restarts = status === DisconnectReason.restartRequired
    emit({ event: 'close', status, error: error?.message ?? null, restarts })
    if (restarts) socket = connect()
  }
}

function messageArrived({ key, message, messageStubType, messageStubParameters, pushName, messageTimestamp }) {
  const common = { id: key.id, from: key.remoteJid, fromMe: Boolean(key.fromMe), key }
  const text = textOf(message)
  if (text !== undefined) {
    emit({ event: 'message', ...common, text, pushName, t: Number(messageTimestamp) })
  } else if (messageStubType === WAMessageStubType.CIPHERTEXT) {
    // Baileys asks for such a message again; if that works, the text follows as an event of its own.
    emit({ event: 'undecryptable', ...common, error: messageStubParameters?.[0] })
  }
}

/** The text of a plain text message; nothing for all other kinds. */
function textOf(message) {
  return message?.conversation || message?.extendedTextMessage?.text || undefined
}

function statusChanged(key, status) {
  if (status !== undefined && status !== null) {
    const name = proto.WebMessageInfo.Status[status]?.toLowerCase() ?? String(status)
    emit({ event: 'receipt', id: key.id, status: name, from: key.remoteJid })
  }
}

/** A receipt of one member of a group. */
function receiptArrived(key, receipt) {
  const status = receipt.playedTimestamp ? 'played' : receipt.readTimestamp ? 'read' : 'delivery_ack'
  emit({ event: 'receipt', id: key.id, status, from: key.remoteJid, participant: receipt.userJid })
}

/** What was sent, in a file, so that a retry receipt can be answered after a restart, too. */
function openSentLog(path) {
  const messages = new Map()
  if (existsSync(path)) {
    for (const line of readFileSync(path, 'utf8').split('\n').filter(Boolean)) {
      const { id, message } = JSON.parse(line)
      messages.set(id, proto.Message.decode(Buffer.from(message, 'base64')))
    }
  }
  return {
    find: id => messages.get(id),
    add({ key, message }) {
      messages.set(key.id, message)
      const bytes = Buffer.from(proto.Message.encode(message).finish())
      appendFileSync(path, JSON.stringify({ id: key.id, message: bytes.toString('base64') }) + '\n')
    }
  }
}

const COMMANDS = {
  async send({ to, text, ref }) {
    if (!socket.user?.id) throw new Error('not logged in')
    // In two steps, because a retry receipt can be there before `sendMessage` has returned what it sent.
    const message = await generateWAMessage(to, { text, linkPreview: null }, { logger, userJid: socket.user.id })
    sent.add(message)
    await socket.relayMessage(to, message.message, { messageId: message.key.id })
    emit({ event: 'sent', ref, id: message.key.id })
  },

  async members({ group, action, members, ref }) {
    const results = await socket.groupParticipantsUpdate(group, members, action)
    emit({ event: 'members', ref, results: results.map(({ status, jid }) => ({ status, jid })) })
  },

  async pair({ number }) {
    emit({ event: 'code', code: await socket.requestPairingCode(number) })
  },

  async read({ key }) {
    await socket.readMessages([key])
  },

  async reconnect() {
    await hangUp()
    socket = connect()
  },

  async quit() {
    await hangUp()
    process.exit(0)
  }
}

/** Ends the connection, if there is one, and waits until its last stanzas are dealt with. */
async function hangUp() {
  await socket.end(undefined)
  await new Promise(resolve => setTimeout(resolve, SETTLE_MS))
  await saveCreds()
}

async function perform(line) {
  let command
  try {
    command = JSON.parse(line)
    const action = Object.hasOwn(COMMANDS, command.cmd) ? COMMANDS[command.cmd] : undefined
    if (!action) throw new Error(`unknown command ${command.cmd}`)
    await action(command)
  } catch (error) {
    emit({ event: 'error', ref: command?.ref ?? null, error: error.message })
  }
}

function emit(event) {
  process.stdout.write(JSON.stringify(event) + '\n')
}

// One command after the other: texts leave in the order in which they were asked for.
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim()) await perform(line)
}
await COMMANDS.quit()
