// The child that runs nodes of hyperdht: a DHT of its own, or one endpoint that dials and is dialed by key.
// It speaks the JSON lines that peers/process.py describes.

import readline from 'node:readline'
import DHT from 'hyperdht'

const PORT = 49737
const emit = message => process.stdout.write(JSON.stringify(message) + '\n')
const now = () => Number(process.hrtime.bigint()) / 1e9
const network = []
let node = null
let server = null
let sockets = []

const within = (promise, seconds) => {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing within ${seconds} s`)), seconds * 1000)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

const opened = socket => new Promise((resolve, reject) => {
  socket.once('open', resolve)
  socket.once('error', reject)
  socket.once('close', () => reject(new Error('closed before it was open')))
})

const said = socket => new Promise((resolve, reject) => {
  socket.once('data', resolve)
  socket.once('error', reject)
  socket.write(Buffer.from('are you there?'))
})

const commands = {
  // A DHT with one node on each address; others start from the first.
  async network ({ addresses }) {
    let bootstrap = []
    for (const host of addresses) {
      const one = new DHT({ ephemeral: false, firewalled: false, bootstrap, host, port: PORT })
      await one.fullyBootstrapped()
      if (!bootstrap.length) bootstrap = [{ host, port: PORT }]
      network.push(one)
    }
    return { bootstrap }
  },
  // A fresh node with a fresh key that others may dial, once it knows its own NAT and is announced.
  async bind ({ bootstrap }) {
    await commands.unbind()
    node = new DHT({ bootstrap, ephemeral: true })
    server = node.createServer(socket => {
      sockets.push(socket)
      socket.on('error', () => {})
      socket.on('data', data => socket.write(data))
    })
    const keyPair = DHT.keyPair()
    await node.fullyBootstrapped()
    await server.listen(keyPair)
    return { key: keyPair.publicKey.toString('hex') }
  },
  // Seconds from the key until the connection is open and has answered; hyperdht opens one only when it is direct.
  async dial ({ key, wait }) {
    const began = now()
    const socket = node.connect(Buffer.from(key, 'hex'))
    socket.on('error', () => {})
    try {
      await within(opened(socket), wait)
      const direct = now() - began
      await within(said(socket), 10)
      return { direct, why: null }
    } catch (error) {
      return { direct: null, why: error.message }
    } finally {
      socket.destroy()
    }
  },
  // Seconds of CPU that this process has used, and the clock.
  async costs () {
    const { user, system } = process.cpuUsage()
    return { cpu: (user + system) / 1e6, at: now() }
  },
  async unbind () {
    sockets.forEach(socket => socket.destroy())
    sockets = []
    if (node) await node.destroy({ force: true })
    node = server = null
    return {}
  }
}

emit({ event: 'ready' })
const lines = readline.createInterface({ input: process.stdin })
lines.on('line', async line => {
  const { id, do: name, ...options } = JSON.parse(line)
  try {
    emit({ id, ok: await commands[name](options) })
  } catch (error) {
    emit({ id, error: `${name}: ${error.message}` })
  }
})
lines.on('close', () => process.exit(0))
