// Runs Segment's own mapping code (@segment/action-destinations), unmodified, over Segment-spec events with its default
// mappings, and tells which requests it would make. No request leaves: fetch is replaced by a recorder before that code
// loads, and a socket that is opened all the same ends the run.
//
//     node mappings.mjs < events.json
//
// Standard input: {"events": [event with messageId], "subscriptions": {NAME: [{"destination", "settings", "action",
// "subscribe"?, "mapping"?}]}}. An action without "subscribe" runs by its own default subscription, one named "presets" by
// all automatic presets of its destination; "mapping" is laid over the defaults. Prints {NAME: [{"messageId", "action",
// "requests": [{"url", "body"}], "error"?}]}, one entry for each action that took an event.

import { createRequire } from 'node:module'
import net from 'node:net'

net.Socket.prototype.connect = () => {
  throw new Error('this test uses no network')
}

const require = createRequire(import.meta.url)
let recorded = []
async function record(input, init) {
  const request = new Request(input, init)
  recorded.push({ url: request.url, body: JSON.parse((await request.text()) || 'null') })
  return new Response('{}', { status: 200, headers: { 'content-type': 'application/json' } })
}
const fetchPath = require.resolve('cross-fetch')
require.cache[fetchPath] = {
  id: fetchPath,
  filename: fetchPath,
  loaded: true,
  exports: Object.assign(record, { __esModule: true, default: record, fetch: record, Headers, Request, Response }),
}
const { Destination, defaultValues } = require('@segment/actions-core')

/** What a customer has who switches the action on and changes nothing. */
function subscriptionsOf(definition, { action, subscribe, mapping = {} }) {
  if (action === 'presets') {
    return definition.presets
      .filter((preset) => preset.type === 'automatic')
      .map((preset) => ({ ...preset, mapping: { ...preset.mapping, ...mapping } }))
  }
  const { fields, defaultSubscription, syncMode } = definition.actions[action]
  const mode = syncMode ? { __segment_internal_sync_mode: syncMode.default } : {}
  const complete = { ...defaultValues(fields), ...mode, ...mapping }
  return [{ name: action, partnerAction: action, subscribe: subscribe ?? defaultSubscription, mapping: complete }]
}

async function run(events, wanted) {
  const told = []
  for (const one of wanted) {
    const { default: definition } = require(`@segment/action-destinations/dist/destinations/${one.destination}`)
    const destination = new Destination(definition)
    for (const subscription of subscriptionsOf(definition, one)) {
      for (const event of events) {
        recorded = []
        const entry = { messageId: event.messageId, action: subscription.name }
        try {
          const settings = structuredClone(one.settings)
          await destination.onEvent(structuredClone(event), { ...settings, subscription: structuredClone(subscription) })
        } catch (error) {
          entry.error = String(error.message)
        }
        if (recorded.length > 0 || entry.error) told.push({ ...entry, requests: recorded })
      }
    }
  }
  return told
}

let text = ''
for await (const chunk of process.stdin) text += chunk
const { events, subscriptions } = JSON.parse(text)
const answer = {}
for (const [name, wanted] of Object.entries(subscriptions)) answer[name] = await run(events, wanted)
console.log(JSON.stringify(answer))
