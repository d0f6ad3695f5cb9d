// Tabs of a headless Chromium, steered by JSON lines like gun_client.cjs: one command per line on stdin, one
// answer per line on stdout. It works the page of examples/todo as a person would: types, clicks, looks.
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

const say = line => process.stdout.write(JSON.stringify(line) + '\n')
const setup = JSON.parse(process.argv[2])
const COMMAND_MS = 10_000

const browser = await chromium.launch({
  executablePath: setup.chromium,
  headless: true,
  chromiumSandbox: false,
  // The browser talks to 127.0.0.1 and to nobody else.
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
  ],
})
const profiles = new Map()
const tabs = new Map()

const tab = cmd => tabs.get(cmd.tab).page
// The browser draws a tab in the background about once a second, and a click waits for two drawings.
const front = async cmd => {
  await tab(cmd).bringToFront()
  return tab(cmd)
}
// An item is found by what it says, which is how a person finds it.
const row = (cmd, text) =>
  tab(cmd).locator('#items > li').filter({ has: tab(cmd).getByText(text, { exact: true }) })

function listed() {
  return [...document.querySelectorAll('#items > li')].map(item => ({
    text: item.querySelector('.text').textContent,
    done: item.querySelector('.tick').checked,
  }))
}

const commands = {
  // Tabs of one profile share what the page keeps in the browser; other profiles share nothing but the relay.
  async open({ tab, profile, url }) {
    const viewport = { width: 900, height: 720 }
    if (!profiles.has(profile)) profiles.set(profile, await browser.newContext({ viewport }))
    const page = await profiles.get(profile).newPage()
    page.setDefaultTimeout(COMMAND_MS)
    const errors = []
    page.on('console', message => message.type() === 'error' && errors.push(message.text()))
    page.on('pageerror', error => errors.push(String(error)))
    page.on('requestfailed', request => errors.push(`${request.url()} ${request.failure()?.errorText}`))
    page.on('dialog', dialog => {
      errors.push(`dialog: ${dialog.message()}`)
      return dialog.dismiss()
    })
    tabs.set(tab, { page, errors })
    await page.goto(url)
  },

  async add(cmd) {
    const page = await front(cmd)
    await page.fill('#new', cmd.text)
    await page.press('#new', 'Enter')
  },
  async tick(cmd) {
    await front(cmd)
    await row(cmd, cmd.text).locator('.tick').setChecked(cmd.on)
  },
  async rename(cmd) {
    await front(cmd)
    const item = row(cmd, cmd.text)
    await item.locator('.rename').click()
    // Once its text is being edited, the item is found by the field that has the focus.
    await tab(cmd).locator('.edit:focus').fill(cmd.to)
    await tab(cmd).locator('.edit:focus').press('Enter')
  },
  async remove(cmd) {
    await front(cmd)
    await row(cmd, cmd.text).locator('.remove').click()
  },

  items: cmd => tab(cmd).evaluate(listed),
  connection: cmd => tab(cmd).locator('#connection').getAttribute('data-state'),
  summary: cmd => tab(cmd).locator('#summary').textContent(),

  // Waits until the tab shows exactly this, in any order; the answer is what it shows in the end.
  async until_items(cmd) {
    const same = wanted => {
      const shown = [...document.querySelectorAll('#items > li')].map(item =>
        JSON.stringify([item.querySelector('.text').textContent, item.querySelector('.tick').checked]))
      return JSON.stringify(shown.sort()) === JSON.stringify(wanted.map(item => JSON.stringify(item)).sort())
    }
    // Polled by the clock, as a tab in the background draws too seldom.
    await tab(cmd).waitForFunction(same, cmd.items, { timeout: cmd.ms, polling: 20 }).catch(() => {})
    return tab(cmd).evaluate(listed)
  },
  async until_connection(cmd) {
    await tab(cmd).locator(`#connection[data-state="${cmd.state}"]`).waitFor({ timeout: cmd.ms })
  },

  errors: cmd => tabs.get(cmd.tab).errors,
  async screenshot(cmd) {
    await (await front(cmd)).screenshot({ path: cmd.path, fullPage: true })
  },
}

createInterface({ input: process.stdin }).on('line', async line => {
  const cmd = JSON.parse(line)
  try {
    const result = await commands[cmd.do](cmd)
    say({ id: cmd.id, ok: result === undefined ? null : result })
  } catch (error) {
    say({ id: cmd.id, error: String(error?.stack || error) })
  }
}).on('close', async () => {
  await browser.close()
  process.exit(0)
})
say({ event: 'ready', version: browser.version() })
