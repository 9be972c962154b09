'use strict';
// Everything that comes from the API is put in by textContent; nothing is ever parsed as HTML.
const $ = id => document.getElementById(id);
const API = '/api/v1/page/';
const state = { overview: null, db: null, utc: true, from: 0, to: 0, follow: true, line: null,
  backups: [], types: [], pick: 0, moment: null, failures: 0, timer: 0, asked: 0, soon: 0 };

async function ask(path, args, options) {
  const query = new URLSearchParams(args || {}).toString();
  const answer = await fetch(API + path + (query ? '?' + query : ''), { cache: 'no-store', ...options });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error || `status ${answer.status}`), { status: answer.status });
  return body;
}

// ---- texts ----
const pad = (n, w = 2) => String(n).padStart(w, '0');
function time(us, fine) {
  if (!us) return 'never';
  const d = new Date(us / 1000), u = state.utc ? 'UTC' : '';
  const part = (name) => d['get' + u + name]();
  return `${part('FullYear')}-${pad(part('Month') + 1)}-${pad(part('Date'))}` +
    (state.utc || fine ? 'T' : ' ') + `${pad(part('Hours'))}:${pad(part('Minutes'))}:${pad(part('Seconds'))}` +
    (fine ? '.' + pad(((us % 1e6) + 1e6) % 1e6, 6) : '') + (state.utc ? 'Z' : offset(-d.getTimezoneOffset()));
}
function offset(minutes) {
  const m = Math.round(minutes), a = Math.abs(m);
  return `${m < 0 ? '-' : '+'}${pad(Math.floor(a / 60))}:${pad(a % 60)}`;
}
// A time without a zone is one of the zone that is shown; the server would take it for UTC.  What a
// time change repeats or skips is an error that shows both readings, as on the command line.
function zoned(text) {
  const m = state.utc ? null : /^(?:(\d{4})(-?)(\d\d)\2(\d\d)|(today|yesterday))(?:[T ]+(\d\d)(?:([:-]?)(\d\d)(?:\7(\d\d)(?:[.,](\d{1,6})0*)?)?)?)?$/i.exec(text);
  if (!m) return text;
  const now = new Date(), back = /^y/i.test(m[5] || '') ? 1 : 0;
  const [year, month, day] = m[5] ? [now.getFullYear(), now.getMonth(), now.getDate() - back] : [+m[1], m[3] - 1, +m[4]];
  const clock = [m[6], m[8], m[9]].map(x => +(x || 0)), d = new Date(Date.UTC(year, month, day, ...clock));
  if (clock[0] > 23 || clock[1] > 59 || clock[2] > 59 ||
      (!m[5] && (d.getUTCMonth() !== month || d.getUTCDate() !== day))) return text; // there is none: the server says so
  return epoch(fromClock(text, d.getTime()) * 1000 + Number((m[10] || '').padEnd(6, '0')));
}
// The moment (ms) at which clocks here show `civil`, a time counted as if it were UTC: every offset of a
// day either way is tried; a reading holds if its own offset is the one in force then.
function fromClock(text, civil) {
  const inForce = ms => -new Date(ms).getTimezoneOffset(), all = [];
  for (let hour = -26; hour <= 26; hour++) all.push(inForce(civil + hour * 3600000));
  const held = [...new Set(all)].filter(o => inForce(civil - o * 60000) === o);
  if (held.length === 1) return civil - held[0] * 60000;
  const readings = (held.length ? held : [all[0], all[all.length - 1]]).map(o =>
    `${new Date(civil).toISOString().slice(0, 19)}${offset(o)} (${new Date(civil - o * 60000).toISOString().slice(0, 19)}Z)`);
  throw new Error(`local time '${text}' ${held.length ? 'happens twice' : 'is skipped by a time change'}: write ${readings.join(' or ')}`);
}
const epoch = us => { const f = ((us % 1e6) + 1e6) % 1e6; return `@${(us - f) / 1e6}.${pad(f, 6)}`; };
function span(us) {
  const s = Math.max(0, us / 1e6);
  if (s > 0 && s < 1) return `${Number(s.toPrecision(1))} seconds`;
  if (s < 120) return `${Math.round(s)} second${Math.round(s) === 1 ? '' : 's'}`;
  if (s < 7200) return `${Math.round(s / 60)} minutes`;
  if (s < 172800) return `${Math.round(s / 3600)} hours`;
  return `${Math.round(s / 86400)} days`;
}
function size(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (n >= 1024 && i < 4) { n /= 1024; i++; }
  return `${i && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}
const count = n => n === null ? 'not counted in time' : n.toLocaleString('en');
const quote = text => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, `'\\''`)}'`;
function element(tag, text, name) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  return e;
}
function rows(table, list) {
  const body = document.querySelector(`#${table} tbody`);
  body.replaceChildren(...list.map(cells => { const r = element('tr'); r.append(...cells); return r; }));
}

// A time stays on one line.
function prose(e, text) {
  if (e.textContent !== text)
    e.replaceChildren(...text.split(/(\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:\d\d)[,:]?)/).map((t, i) => element('span', t, i % 2 ? 'whole' : '')));
}
const lag = (o, d) => span(Math.round((o.now_us - d.known_until_us) / 1e6) * 1e6);

// ---- the verdict ----
const current = () => state.overview && state.overview.databases.find(d => d.id === state.db);

function showVerdict() {
  const o = state.overview, d = current(), box = $('verdict');
  let problems = o.problems;
  let level = o.level, head, detail = '';
  if (!d) {
    head = 'Nothing can be restored: no database is protected here';
    level = 'failed';
  } else if (d.absent) {
    head = `${d.name} is waited for: there is no such file yet`;
  } else if (!d.stored || !d.restorable || d.damaged) {
    level = 'failed';
    head = !d.stored ? `Nothing of ${d.name} can be restored yet`
      : !d.restorable ? `The newest state of ${d.name} cannot be restored`
        : `Stored parts of the history of ${d.name} are damaged`;
  } else {
    head = `You can restore ${d.name} to any moment from ${time(d.first_us)} to ` +
      `${time(d.known_until_us)}, ${lag(o, d)} ago` +
      (d.gaps ? `, ${d.gaps} gap${d.gaps === 1 ? '' : 's'} excepted` : '') +
      `; ${d.verified_through_us ? 'verified through ' + time(d.verified_through_us) : 'not verified yet'}`;
    if (level === 'failed') detail = 'Something is wrong all the same:';
  }
  box.className = level;
  prose($('headline'), head);
  $('detail').textContent = detail;
  $('problems').replaceChildren(...problems.slice(0, 20).map(p =>
    element('li', `${p.subject} ${p.database ? p.database + ' ' : ''}${p.name}: ${p.reason}`)));
}

function showFigures() {
  const d = current(), o = state.overview;
  if (!d) { $('figures').replaceChildren(); return; }
  const list = [['Captured up to', lag(o, d) + ' ago'],
    ['Newest commit', d.last_txid ? `tx ${d.last_txid}` : 'none'],
    ['Database', `${size(d.db_bytes)} + ${size(d.wal_bytes)} WAL`],
    ['Archive', size(d.stored_bytes)], ['Snapshots', count(d.snapshots)], ['Capture', d.state]];
  for (const t of d.destinations)
    list.push([t.name, t.problem || (t.behind_since_us ? span(o.now_us - t.behind_since_us) + ' behind' : t.txid ? 'up to date' : 'nothing yet')]);
  $('figures').replaceChildren(...list.map(([name, value]) => {
    const e = element('div'); e.append(element('dt', name), element('dd', value)); return e;
  }));
}

function showDatabases() {
  const ids = state.overview.databases.map(d => d.id), box = $('database');
  if ([...box.options].map(x => x.value).join('\n') !== ids.join('\n')) {
    box.replaceChildren(...state.overview.databases.map(d => {
      const x = element('option', d.id); x.value = d.id; return x; }));
  }
  if (!ids.includes(state.db)) { state.db = ids[0] || null; state.follow = true; state.line = null; loadBackups(); }
  box.value = state.db || '';
}

async function poll() {
  clearTimeout(state.timer);
  if (!document.hidden) {
    try {
      state.overview = await ask('overview');
      state.failures = 0;
      $('logout').hidden = !state.overview.logged_in;
      showDatabases(); showVerdict(); showFigures();
      if (state.follow || !state.line) await loadLine();
    } catch (e) {
      if (e.status === 401) { askToken(); return; }
      state.failures++;
      $('verdict').className = 'failed';
      $('headline').textContent = 'asof does not answer: whether you could restore is not known';
      $('detail').textContent = e.message;
    }
  }
  state.timer = setTimeout(poll, document.hidden ? 30000 : Math.min(1000 * 2 ** state.failures, 15000));
}

// ---- logging in ----
// Where a token alone is wanted, a browser cannot ask for it by itself.  It is given once; from then on a
// cookie that no script can read goes along, with downloads too.
function showLogin(shown) {
  $('login').hidden = !shown;
  for (const e of [document.querySelector('main'), $('zone'), $('database').parentElement]) e.hidden = shown;
}
function askToken() { showLogin(true); $('logout').hidden = true; $('token').focus(); }
async function logIn() {
  try {
    await ask('login', {}, { method: 'POST', headers: { 'X-Asof': '1', Authorization: 'Bearer ' + $('token').value.trim() } });
    $('token').value = ''; $('login-line').textContent = ''; showLogin(false);
    state.db = null; // what it held was not to be had before
    poll();
  } catch (e) { $('login-line').textContent = e.status === 401 ? 'This is not the token (http: in asof.yml has it).' : e.message; }
}
async function logOut() {
  await ask('logout', {}, { method: 'POST', headers: { 'X-Asof': '1' } }).catch(() => {});
  location.reload();
}

// ---- the timeline ----
async function loadLine() {
  const d = current();
  if (!d || !d.stored) { state.line = null; draw(); return; }
  if (state.follow) { state.from = d.first_us; state.to = Math.max(d.known_until_us, d.first_us + 1e6) + 1; }
  const asked = ++state.asked;
  const line = await ask('timeline', { db: state.db, from: epoch(state.from), to: epoch(state.to),
    buckets: Math.max(20, Math.min(500, Math.floor($('timeline').clientWidth / 4))) });
  if (asked === state.asked) { state.line = line; draw(); }
}
const color = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name);
const xOf = (us, width) => (us - state.from) / (state.to - state.from) * width;

function draw() {
  const c = $('timeline'), ratio = window.devicePixelRatio || 1, w = c.clientWidth, h = c.clientHeight;
  c.width = w * ratio; c.height = h * ratio;
  const g = c.getContext('2d'), line = state.line, d = current();
  g.scale(ratio, ratio);
  if (!line || !d) return;
  const bottom = h - 24, top = 22, x = us => xOf(us, w);
  g.fillStyle = color('gap'); g.globalAlpha = .25;
  for (const gap of line.gaps) g.fillRect(x(gap.from_us), top, Math.max(2, x(gap.to_us) - x(gap.from_us)), bottom - top);
  g.globalAlpha = 1;
  const most = Math.max(1, ...line.commits), n = line.commits.length, at = us => x(us);
  g.fillStyle = color('bar');
  const left = at(line.from_us), step = (at(line.to_us) - left) / n;
  line.commits.forEach((k, i) => { if (k) { const y = Math.max(1, k / most * (bottom - top)); g.fillRect(left + i * step, bottom - y, Math.max(1, step - 1), y); } });
  const biggest = Math.max(1, ...line.bytes);
  g.strokeStyle = color('size'); g.lineWidth = 1.5; g.beginPath();
  line.bytes.forEach((b, i) => { const y = bottom - b / biggest * (bottom - top) * .95; g[i ? 'lineTo' : 'moveTo'](left + (i + .5) * step, y); });
  g.stroke();
  if (d.verified_through_us) { g.fillStyle = color('ok'); g.fillRect(x(d.first_us), bottom, Math.max(0, x(d.verified_through_us) - x(d.first_us)), 3); }
  g.fillStyle = color('accent');
  for (const b of state.backups) { const p = x(b.state_us || b.time_us); g.beginPath(); g.moveTo(p, 18); g.lineTo(p - 5, 9); g.lineTo(p + 5, 9); g.fill(); }
  g.fillStyle = color('snap');
  g.strokeStyle = color('card'); g.lineWidth = 1.5;
  for (const s of line.snapshots) { // before bars of any height, and whole at either end
    const p = Math.max(7, Math.min(w - 7, x(s.time_us))), y = bottom - 7;
    g.beginPath(); g.moveTo(p, y - 6); g.lineTo(p + 6, y); g.lineTo(p, y + 6); g.lineTo(p - 6, y); g.closePath(); g.fill(); g.stroke();
  }
  for (const v of line.verifications) { g.fillStyle = color(v.ok ? 'ok' : 'bad'); g.beginPath(); g.arc(x(v.time_us), bottom + 2, 4, 0, 7); g.fill(); }
  g.fillStyle = color('mark');
  for (const m of line.marks) g.fillRect(x(m.time_us) - 1, top, 2, bottom - top);
  const end = time(state.to), font = px => `${px}px system-ui, sans-serif`;
  g.fillStyle = color('quiet'); g.font = font(12);
  if (2 * g.measureText(end).width + 24 > w) g.font = font(10);
  g.fillText(time(state.from), 6, h - 7);
  g.fillText(end, w - g.measureText(end).width - 6, h - 7);
  const tell = `at most ${most} commit${most === 1 ? '' : 's'} in ${span((line.to_us - line.from_us) / n)}, ${size(biggest)}`;
  if (w > 500) g.fillText(tell, (w - g.measureText(tell).width) / 2, h - 7);
  if (state.pick) { g.strokeStyle = color('ink'); g.lineWidth = 1; g.beginPath(); g.moveTo(x(state.pick), 0); g.lineTo(x(state.pick), bottom + 4); g.stroke(); }
  c.setAttribute('aria-valuenow', Math.round(Math.max(0, Math.min(100, x(state.pick || state.to) / w * 100))));
  c.setAttribute('aria-valuetext', time(state.pick || state.to));
}
let loading = 0;
function move(from, to) {
  const least = 1000, d = current();
  if (!d || to - from < least) return;
  state.from = Math.round(from); state.to = Math.round(to); state.follow = false;
  draw();
  clearTimeout(loading); loading = setTimeout(() => loadLine().catch(fail), 80);
}
function zoom(factor, us) {
  const about = us === undefined ? state.pick || (state.from + state.to) / 2 : us;
  move(about - (about - state.from) * factor, about + (state.to - about) * factor);
}
const fail = e => { prose($('moment-line'), e.message); $('moment-line').className = 'bad'; };
const usAt = clientX => { const r = $('timeline').getBoundingClientRect(); return Math.round(state.from + (clientX - r.left) / r.width * (state.to - state.from)); };

const fingers = new Map(); // by pointer: [x, y]
const apart = (a, b) => Math.max(10, Math.hypot(a[0] - b[0], a[1] - b[1]));
let moved = false;
function bindTimeline() {
  const c = $('timeline');
  c.addEventListener('wheel', e => { e.preventDefault(); zoom(Math.exp(Math.max(-60, Math.min(60, e.deltaY)) * .006), usAt(e.clientX)); }, { passive: false });
  c.addEventListener('pointerdown', e => { c.setPointerCapture(e.pointerId); fingers.set(e.pointerId, [e.clientX, e.clientY]); moved = fingers.size > 1; });
  c.addEventListener('pointermove', e => {
    const before = fingers.get(e.pointerId), now = [e.clientX, e.clientY];
    if (!before || Math.hypot(now[0] - before[0], now[1] - before[1]) < (moved ? 1 : 5)) return;
    const other = [...fingers].filter(([id]) => id !== e.pointerId).map(f => f[1])[0];
    moved = true;
    const by = usAt(before[0]) - usAt(now[0]);
    if (other) { // what is between the fingers stays there
      move(state.from + by / 2, state.to + by / 2);
      zoom(apart(before, other) / apart(now, other), usAt((now[0] + other[0]) / 2));
    } else { move(state.from + by, state.to + by); }
    fingers.set(e.pointerId, now);
  });
  const up = e => { if (fingers.delete(e.pointerId) && !fingers.size && !moved && e.type === 'pointerup') pick(usAt(e.clientX), true); };
  c.addEventListener('pointerup', up); c.addEventListener('pointercancel', up);
  c.addEventListener('keydown', e => {
    const width = state.to - state.from, small = width / (e.shiftKey ? 20 : 200), at = state.pick || state.to;
    const keys = { ArrowLeft: () => pick(at - small), ArrowRight: () => pick(at + small),
      Home: () => pick(current().first_us), End: () => pick(current().known_until_us),
      PageUp: () => move(state.from - width / 2, state.to - width / 2), PageDown: () => move(state.from + width / 2, state.to + width / 2),
      '+': () => zoom(.5), '=': () => zoom(.5), '-': () => zoom(2), Enter: () => pick(at, true) };
    if (keys[e.key] && current()) { e.preventDefault(); keys[e.key](); }
  });
  new ResizeObserver(draw).observe(c);
}

// ---- a moment ----
function showPick() { if (state.pick) { $('at').value = time(state.pick, true); draw(); } }
function pick(us, open) {
  const d = current();
  if (!d) return;
  state.pick = Math.round(Math.max(d.first_us, Math.min(us, d.known_until_us)));
  showPick();
  if (open) showMoment({ at: epoch(state.pick) });
}
function momentLine() {
  const m = state.moment;
  prose($('moment-line'), `tx ${m.txid}, committed ${time(m.time_us, true)}: ${size(m.bytes)}` +
    (m.pages ? `, ${count(m.pages)} pages written` : '') + (m.healed ? ', the first state after a gap' : '') +
    (m.provisional ? ', newest so far' : '') + (m.problem ? `. ${m.problem}` : ''));
}
async function showMoment(which) {
  $('moment-line').className = ''; $('moment-line').textContent = 'Reading …';
  const db = state.db;
  try {
    const m = await ask('moment', { db, ...which });
    if (db !== state.db) return;
    state.moment = m;
    momentLine();
    rows('tables', m.tables.map(t => [element('td', t.name), element('td', count(t.rows), 'n')]));
    const changes = m.changes || [];
    $('no-change').textContent = m.changes ? (changes.length ? '' : 'no row') : m.previous ? 'not known' : 'the first moment there is';
    rows('changes', changes.map(x => [element('td', (x.type === 'table' ? '' : x.type + ' ') + x.name + (x.how === 'same' ? '' : ` (${x.how})`)),
      ...[x.added, x.removed, x.changed].map(n => element('td', count(n), 'n'))]));
    $('changes').hidden = !changes.length;
    $('download').href = `${API}download?` + new URLSearchParams({ db, tx: m.txid });
    $('copy-mount').disabled = !state.overview.mount;
    $('moment').hidden = false;
  } catch (e) { $('moment').hidden = true; fail(e); }
}
async function copy(text) {
  try { await navigator.clipboard.writeText(text); $('copied').textContent = 'Copied: ' + text; }
  catch (e) { $('copied').textContent = 'Copy this: ' + text; }
}

// ---- backups ----
async function loadBackups() {
  if (!state.db) return;
  const db = state.db, list = await ask('backups', { db }).catch(e => { say(e.message, 'bad'); return { backups: [], types: [], places: [] }; });
  if (db !== state.db) return;
  state.backups = list.backups;
  state.types = list.types;
  const row = b => {
    const button = element('button', 'Validate'), cell = element('td');
    button.type = 'button'; button.setAttribute('aria-label', 'Validate ' + b.name);
    button.addEventListener('click', () => order('validate', { file: b.name }, `Validating ${b.name} …`, `${b.name} is good`));
    cell.append(button);
    const r = element('tr');
    const at = element('td', b.at.join(', ') || '–');
    if (!b.at.length) at.className = 'quiet';
    r.append(element('td', time(b.time_us)), element('td', size(b.bytes), 'n'), element('td', b.name), at, cell);
    return r;
  };
  showPlaces(list.places);
  $('backups').classList.toggle('here', !list.places.length);
  const groups = list.types.map(t => {
    const body = element('tbody'), head = element('tr');
    const th = element('th', `${t.type}: ${count(t.count)}${t.count ? ', last ' + time(t.last_us) : ''}`);
    th.colSpan = 5; th.scope = 'rowgroup'; head.append(th);
    body.append(head, ...list.backups.filter(b => b.type === t.type).slice(0, 20).map(row));
    body.dataset.type = t.type;
    return body;
  });
  document.querySelectorAll('#backups tbody').forEach(b => b.remove());
  $('backups').append(...groups);
  if (!list.backups.length && !$('backup-line').textContent) say('None yet. The history above is kept besides.');
  draw();
}
// Where they go besides: what lies there, what waits, and what is wrong.
function showPlaces(places) {
  $('places').replaceChildren(...places.map(p => {
    const item = element('li');
    const when = us => element('span', time(us), 'whole');
    item.append(element('strong', p.name), p.count ? `: ${count(p.count)} there, ${size(p.bytes)}, the newest of ` : ': none there yet');
    if (p.count) item.append(when(p.last_us));
    if (p.waiting) item.append(`; ${count(p.waiting)} to go, since `, when(p.waiting_since_us));
    if (p.failing_since_us) {
      const fault = element('span', '; fails since ', 'bad');
      fault.append(when(p.failing_since_us), ': ' + p.trouble);
      item.append(fault);
    }
    item.title = p.url;
    return item;
  }));
  // One that is on its way is there before long; who holds a button of the table keeps it.
  clearTimeout(state.soon);
  if (places.some(p => p.waiting)) state.soon = setTimeout(() => { if (!$('backups').contains(document.activeElement)) loadBackups(); }, 5000);
}
const say = (text, name) => { $('backup-line').textContent = text; $('backup-line').className = name || 'quiet'; };
async function order(what, args, during, after) {
  const buttons = [$('take'), ...document.querySelectorAll('#backups button')];
  buttons.forEach(b => { b.disabled = true; });
  say(during);
  try {
    const done = await ask(what, { db: state.db, ...args }, { method: 'POST', headers: { 'X-Asof': '1' } });
    say(done.ok ? after : done.text, done.ok ? 'good' : 'bad');
  } catch (e) { say(e.message, 'bad'); }
  buttons.forEach(b => { b.disabled = false; });
  if (what === 'backup') loadBackups();
}

// ---- ----
bindTimeline();
$('database').addEventListener('change', e => { state.db = e.target.value; state.follow = true; state.line = null; state.pick = 0; state.backups = []; $('moment').hidden = true; $('moment-line').textContent = ''; $('backup-line').textContent = ''; loadBackups(); poll(); });
$('zone').addEventListener('click', () => { const shown = time(state.pick, true), typed = $('at').value; state.utc = !state.utc; $('zone').textContent = state.utc ? 'UTC' : 'Local time'; $('zone').setAttribute('aria-pressed', String(!state.utc)); if (state.overview) { showVerdict(); draw(); loadBackups(); }
  if (typed === shown) showPick();
  if (state.moment && !$('moment').hidden) momentLine(); });
$('in').addEventListener('click', () => zoom(.5)); $('out').addEventListener('click', () => zoom(2));
$('whole').addEventListener('click', () => { state.follow = true; loadLine().catch(fail); });
$('pick').addEventListener('submit', e => { e.preventDefault();
  try { showMoment({ at: zoned($('at').value.trim()) }); } catch (x) { $('moment').hidden = true; fail(x); } });
$('copy-restore').addEventListener('click', () => { const d = current(); copy(`asof restore --archive ${quote(d.archive)} --db ${quote(d.name)} --tx ${state.moment.txid} -o ${quote('restored-' + d.name)}`); });
$('copy-mount').addEventListener('click', () => copy(quote(`${state.overview.mount}/tx/${current().name}/${state.moment.txid}`)));
$('take').addEventListener('click', () => order('backup', {}, 'Taking a backup …', 'A backup was taken'));
$('log-in').addEventListener('submit', e => { e.preventDefault(); logIn(); });
$('logout').addEventListener('click', logOut);
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
poll();
