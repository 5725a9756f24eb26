// An existing signaling client as ToM's first programs have it: npm's ws, JSON text, a heartbeat now and then.
import readline from 'node:readline'
import WebSocket from 'ws'

const emit = message => process.stdout.write(JSON.stringify(message) + '\n')
const clients = []

class Client {
  constructor (url) {
    this.heard = []
    this.waiting = []
    this.socket = new WebSocket(url)
    this.socket.on('message', raw => {
      this.heard.push(JSON.parse(raw.toString()))
      this.waiting.splice(0).forEach(wake => wake())
    })
    this.socket.on('close', code => {
      this.closed = code
      this.waiting.splice(0).forEach(wake => wake())
    })
    this.opened = new Promise((resolve, reject) => {
      this.socket.on('open', resolve)
      this.socket.on('error', reject)
    })
  }

  // The next message, or the next of a type; those before it are passed over.
  async hear (type) {
    while (true) {
      while (this.heard.length) {
        const message = this.heard.shift()
        if (!type || message.type === type) return message
      }
      if (this.closed !== undefined) throw new Error(`closed with ${this.closed}`)
      await new Promise(resolve => this.waiting.push(resolve))
    }
  }
}

const commands = {
  async open ({ url }) {
    const client = new Client(url)
    await client.opened
    clients.push(client)
    return { client: clients.length - 1 }
  },
  async say ({ client, message, text }) {
    clients[client].socket.send(text ?? JSON.stringify(message))
    return {}
  },
  async hear ({ client, type }) {
    return { message: await clients[client].hear(type) }
  },
  async close ({ client }) {
    clients[client].socket.close()
    return {}
  },
  async pause ({ client }) {
    clients[client].socket.pause()
    return {}
  },
  async state ({ client }) {
    return { open: clients[client].socket.readyState === WebSocket.OPEN }
  }
}

const input = readline.createInterface({ input: process.stdin })
input.on('line', async line => {
  const { id, do: name, ...options } = JSON.parse(line)
  try {
    emit({ id, ok: await commands[name](options) })
  } catch (error) {
    emit({ id, error: `${name}: ${error.stack}` })
  }
})
input.on('close', () => process.exit(0))
emit({ event: 'ready' })
