// Walks through the sample shop in a real, headless Chromium: looks at a mug, gives an e-mail address, buys.
//   node shopper.mjs CHROMIUM SHOP_URL < visit.json
// Standard input: {"gpc": bool, "anonymousId", "userId", "email", "orderId", "messageId"}. With gpc the browser has Global
// Privacy Control on: the header on every request by DevTools, navigator.globalPrivacyControl by an init script.
// Prints what the page saw and what went over the wire: {"pageSawGpc", "messageId", "requests": [{method, url, status, gpc}]}.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const [executablePath, shop] = process.argv.slice(2)
const visit = JSON.parse(readFileSync(0, 'utf8'))
const profile = mkdtempSync(join(tmpdir(), 'tracklayer-chromium-'))
const requests = []
const complaints = []

const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  ],
})
try {
  const page = browser.pages()[0] ?? await browser.newPage()
  page.on('console', message => { if (message.type() === 'error') complaints.push(message.text()) })
  page.on('pageerror', error => complaints.push(String(error)))
  page.on('response', async response => {
    const request = response.request()
    const headers = await request.allHeaders().catch(() => ({}))
    requests.push({ method: request.method(), url: request.url(), status: response.status(), gpc: headers['sec-gpc'] ?? null })
  })
  if (visit.gpc) {
    const devtools = await browser.newCDPSession(page)
    await devtools.send('Network.enable')
    await devtools.send('Network.setExtraHTTPHeaders', { headers: { 'Sec-GPC': '1' } })
    await page.addInitScript(() => Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', { get: () => true }))
  }
  const sent = kind => page.waitForResponse(response =>
    response.request().method() === 'POST' && new URL(response.url()).pathname === `/v1/${kind}`, { timeout: 30_000 })

  const seen = sent('p')
  const query = new URLSearchParams({ visitor: visit.anonymousId, order: visit.orderId, message: visit.messageId })
  await page.goto(`${shop}&${query}`)
  await seen
  const added = sent('t')
  await page.click('#add-to-cart')
  await added
  await page.fill('#account', visit.userId)
  await page.fill('#email', visit.email)
  const identified = sent('i')
  const ordered = sent('t')
  await page.click('#place-order')
  await Promise.all([identified, ordered])
  await page.waitForSelector('#thanks:not([hidden])', { timeout: 30_000 })
  const pageSawGpc = await page.textContent('#gpc')
  const messageId = await page.textContent('#message-id')
  console.log(JSON.stringify({ pageSawGpc, messageId, requests, complaints }))
} catch (error) {
  console.error(String(error), JSON.stringify({ requests, complaints }, null, 1))
  process.exitCode = 1
} finally {
  await browser.close()
  rmSync(profile, { recursive: true, force: true })
}
