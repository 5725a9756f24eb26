// The child that runs bittorrent-dht nodes; it speaks the JSON lines that peers/process.py describes.

import crypto from 'node:crypto'
import readline from 'node:readline'
import DHT from 'bittorrent-dht'

const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex')
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')
const nodes = new Map()
let next = 0

const emit = message => process.stdout.write(JSON.stringify(message) + '\n')
const hex = text => Buffer.from(text, 'hex')
const sha1 = bytes => crypto.createHash('sha1').update(bytes).digest()
const now = () => Number(process.hrtime.bigint()) / 1e6

function verify (signature, message, key) {
  const publicKey = crypto.createPublicKey({ key: Buffer.concat([SPKI, key]), format: 'der', type: 'spki' })
  return crypto.verify(null, message, publicKey, signature)
}

function signer (seed) {
  const key = crypto.createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: 'der', type: 'pkcs8' })
  const k = crypto.createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32)
  return { k: Buffer.from(k), sign: message => crypto.sign(null, Buffer.from(message), key) }
}

function listen (host, port, bootstrap) {
  const dht = new DHT({ bootstrap: bootstrap.length ? bootstrap.map(([h, p]) => ({ host: h, port: p })) : false, verify, host })
  const entry = { dht, queries: 0 }
  const krpc = dht._rpc.socket
  const send = krpc.send
  krpc.send = function (peer, message, callback) {
    if (message.y === 'q') entry.queries++
    return send.call(this, peer, message, callback)
  }
  dht.on('error', error => console.error(String(error)))
  return new Promise(resolve => dht.listen(port, host, () => resolve(entry)))
}

function add (entry) {
  nodes.set(next, entry)
  return next++
}

const put = (entry, options) => new Promise((resolve, reject) => {
  const start = now()
  const before = entry.queries
  entry.dht.put(options, (error, target, stored) => {
    if (error) return reject(error)
    resolve({ stored, target: target.toString('hex'), ms: now() - start, packets: entry.queries - before })
  })
})

const get = (entry, target, salt, start) => new Promise((resolve, reject) => {
  const before = entry.queries
  let first = null
  const options = {
    cache: false,
    verify (signature, message, key) {
      const good = verify(signature, message, key)
      if (good && first === null) first = now() - start
      return good
    }
  }
  if (salt.length) options.salt = salt
  entry.dht.get(target, options, (error, found) => {
    if (error) return reject(error)
    const end = now() - start
    const reply = { value: null, first_ms: first, end_ms: end, ms: end, packets: entry.queries - before }
    if (found) reply.value = Buffer.from(found.v).toString('hex')
    if (found && found.sig) Object.assign(reply, { seq: found.seq, signature: Buffer.from(found.sig).toString('hex') })
    resolve(reply)
  })
})

const target = (key, salt) => sha1(Buffer.concat([hex(key), hex(salt || '')]))

const commands = {
  async put_mutable ({ node, seed, value, salt, seq, cas }) {
    const options = { ...signer(hex(seed)), v: hex(value), seq }
    if (salt) options.salt = hex(salt)
    if (typeof cas === 'number') options.cas = cas
    return { ...await put(nodes.get(node), options), seq }
  },
  put_immutable: ({ node, value }) => put(nodes.get(node), { v: hex(value) }),
  get_mutable: ({ node, key, salt }) => get(nodes.get(node), target(key, salt), hex(salt || ''), now()),
  get_immutable: ({ node, target }) => get(nodes.get(node), hex(target), Buffer.alloc(0), now()),
  async add_node ({ node, host, port }) {
    nodes.get(node).dht.addNode({ host, port })
    return {}
  },
  async warm ({ node, lookups }) {
    const { dht } = nodes.get(node)
    await Promise.all(Array.from({ length: lookups }, () =>
      new Promise(resolve => dht.get(crypto.randomBytes(20), { cache: false }, resolve))))
    return {}
  },
  async queries ({ node }) {
    return { sent: nodes.get(node).queries }
  },
  async counters ({ node }) {
    const { dht, queries } = nodes.get(node)
    return { nodes: dht.nodes.toArray().length, queries }
  },
  async open ({ host, port, bootstrap, know }) {
    const entry = await listen(host, port, bootstrap)
    await new Promise(resolve => entry.dht.ready ? resolve() : entry.dht.once('ready', resolve))
    for (const [h, p] of know) entry.dht.addNode({ host: h, port: p })
    return { node: add(entry) }
  },
  async cold_get ({ host, port, bootstrap, key, salt }) {
    const start = now()
    const entry = await listen(host, port, bootstrap)
    const reply = await get(entry, target(key, salt), hex(salt || ''), start)
    await new Promise(resolve => entry.dht.destroy(resolve))
    return reply
  },
  async close ({ node }) {
    const { dht } = nodes.get(node)
    nodes.delete(node)
    await new Promise(resolve => dht.destroy(resolve))
    return {}
  }
}

async function start ({ addresses }) {
  for (const [host, port] of addresses) add(await listen(host, port, []))
  // Each pings the next ones and then looks for its own id, as a node that joins does.
  const all = [...nodes.values()]
  all.forEach(({ dht }, place) => {
    for (const step of [1, 2, 5, 11]) {
      const [host, port] = addresses[(place + step) % addresses.length]
      if (addresses.length > step) dht.addNode({ host, port })
    }
  })
  const wanted = Math.min(addresses.length - 1, 12)
  const deadline = now() + 30000
  while (all.some(({ dht }) => dht.nodes.toArray().length < wanted)) {
    if (now() > deadline) throw new Error(`a node still knows fewer than ${wanted} others`)
    await Promise.all(all.map(({ dht }) => new Promise(resolve => dht.lookup(crypto.randomBytes(20), resolve))))
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

await start(JSON.parse(process.argv[2]))
const input = readline.createInterface({ input: process.stdin })
input.on('line', async line => {
  const { id, do: name, ...options } = JSON.parse(line)
  try {
    emit({ id, ok: await commands[name](options) })
  } catch (error) {
    emit({ id, error: `${name}: ${error}`, code: error.code })
  }
})
input.on('close', () => process.exit(0))
emit({ event: 'ready', addresses: JSON.parse(process.argv[2]).addresses })
