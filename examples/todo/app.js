// A shared to-do list on stock gun.js. The relay is whoever served this page.
//
//   ?list=NAME  another list than "main"        ?peer=URL  another relay than this page's origin
//
// Texts come from other people, so they only ever reach the page through textContent and value.
'use strict'

const wanted = new URLSearchParams(location.search)
const listName = wanted.get('list') || 'main'
const relay = wanted.get('peer') || `${location.origin}/gun`
// gun.js redials once, two seconds after a loss, and then gives up; from there on the page asks it again.
const REDIAL_MS = 5000

const gun = Gun({ peers: [relay] })
const list = gun.get(`todo/${listName}`)
const $ = id => document.getElementById(id)

// ---- connection

const TEXTS = { connecting: 'Connecting…', online: 'Live', offline: 'Offline – changes are kept' }
let redial

function connection(state) {
  $('connection').dataset.state = state
  $('connection-text').textContent = TEXTS[state]
  clearInterval(redial)
  if (state !== 'online') redial = setInterval(dial, REDIAL_MS)
}

// gun.js opens a connection when it has something to say to a peer it knows.
function dial() {
  gun.opt({ peers: [relay] })
  gun.on('out', { dam: 'hi' })
}

gun.on('hi', function (peer) {
  this.to.next(peer)
  connection('online')
})
gun.on('bye', function (peer) {
  this.to.next(peer)
  connection('offline')
})
connection('connecting')

// ---- items: soul → { soul, text, done, at, row }

const items = new Map()
const watched = new Set()
const members = new Set()

// The list and its items are heard apart. list.map() would be shorter, but when one message changes an item
// and takes it off the list, gun.js calls a map only once, and not always for the removal.
list.on(links => {
  for (const [soul, link] of Object.entries(links)) {
    if (soul === '_') continue
    if (link === null) leave(soul)
    else enter(soul)
  }
  summarise()
})

function enter(soul) {
  if (members.has(soul)) return
  members.add(soul)
  if (!watched.has(soul)) gun.get(soul).on(node => show(soul, node))
  else gun.get(soul).once(node => show(soul, node))
  watched.add(soul)
}

function leave(soul) {
  members.delete(soul)
  hide(soul)
}

function show(soul, node) {
  // An item may be heard of before its text is there, or after it has left.
  if (!members.has(soul) || !node || typeof node.text !== 'string') return
  const item = items.get(soul) || { soul, row: newRow(soul) }
  Object.assign(item, { text: node.text, done: node.done === true, at: Number(node.at) || 0 })
  items.set(soul, item)

  const { row } = item
  row.classList.toggle('done', item.done)
  row.querySelector('.text').textContent = item.text
  row.querySelector('.tick').checked = item.done
  row.querySelector('.rename').setAttribute('aria-label', `Rename ${item.text}`)
  row.querySelector('.remove').setAttribute('aria-label', `Delete ${item.text}`)
  if (!row.isConnected) place(item)
  summarise()
}

function hide(soul) {
  const item = items.get(soul)
  if (!item) return
  if (item.row.contains(document.activeElement)) $('new').focus()
  item.row.remove()
  items.delete(soul)
}

// Oldest first; the soul decides between items of the same millisecond, so every tab shows one order.
const before = (a, b) => a.at - b.at || (a.soul < b.soul ? -1 : 1)

function place(item) {
  const next = [...items.values()].filter(other => other !== item && other.row.isConnected)
    .sort(before).find(other => before(item, other) < 0)
  $('items').insertBefore(item.row, next ? next.row : null)
}

function summarise() {
  const open = [...items.values()].filter(item => !item.done).length
  const count = items.size
  const noun = count === 1 ? 'item' : 'items'
  const counted = open ? `${open} open of ${count} ${noun}` : `All ${count} ${noun} done`
  $('summary').textContent = count ? counted : 'Nothing here yet'
  $('empty').hidden = count > 0
}

function newRow(soul) {
  const row = $('item').content.firstElementChild.cloneNode(true)
  const part = name => row.querySelector(`.${name}`)
  const [tick, text, edit] = ['tick', 'text', 'edit'].map(part)
  row.dataset.soul = soul
  tick.id = `tick-${soul}`
  text.htmlFor = tick.id

  tick.addEventListener('change', () => gun.get(soul).get('done').put(tick.checked))
  part('remove').addEventListener('click', () => list.get(soul).put(null))

  const editing = on => {
    edit.hidden = !on
    text.hidden = on
  }
  part('rename').addEventListener('click', () => {
    if (!edit.hidden) return save()
    edit.value = items.get(soul).text
    editing(true)
    edit.focus()
    edit.select()
  })
  const save = () => {
    const value = edit.value.trim()
    if (!edit.hidden && value && value !== items.get(soul).text) gun.get(soul).get('text').put(value)
    editing(false)
  }
  edit.addEventListener('keydown', event => {
    if (event.key !== 'Escape' && event.key !== 'Enter') return
    event.preventDefault() // or this very key would press the button that gets the focus
    if (event.key === 'Enter') save()
    editing(false)
    part('rename').focus()
  })
  edit.addEventListener('blur', event => {
    if (event.relatedTarget !== part('rename')) save()
  })
  return row
}

// ---- adding

$('add').addEventListener('submit', event => {
  event.preventDefault()
  const text = $('new').value.trim()
  if (text) list.set({ text, done: false, at: Date.now() })
  $('add').reset()
  $('new').focus()
})
$('list-name').textContent = listName
