'use strict';
// The page is complete without this file. It adds sorting to tables, and a read-out to the curves; and it opens what is closed before printing.

addEventListener('beforeprint', () => { for (const part of document.querySelectorAll('details')) part.open = true; });

// <table data-sort>: every header without data-nosort becomes a button; cells give their value in data-v
for (const table of document.querySelectorAll('table[data-sort]')) {
  const body = table.tBodies[0], original = [...body.rows];
  const value = (row, i) => row.cells[i].dataset.v ?? row.cells[i].textContent.trim();
  const compare = (a, b) => {
    if (a === '' || b === '') return (a === '') - (b === '');
    return isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  };
  [...table.tHead.rows[0].cells].forEach((th, i) => {
    if ('nosort' in th.dataset) return;
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'sort';
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener('click', () => {
      const up = th.getAttribute('aria-sort') !== 'ascending';
      for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
      th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const rows = [...original].sort((p, q) => {
        const a = value(p, i), b = value(q, i), s = compare(a, b);
        return up || a === '' || b === '' ? s : -s;
      });
      body.append(...rows);
      table.classList.toggle('resorted', rows.some((r, k) => r !== original[k]));
    });
  });
}

// Curves share one crosshair; the figures come from the JSON in #series
const series = document.getElementById('series');
if (series) {
  const data = JSON.parse(series.textContent), last = data.days.length - 1;
  const out = document.getElementById('read');
  const rest = 'Point at a curve, or focus it and use the arrow keys, to read a week.';
  out.textContent = rest;
  let at = last;
  const percent = v => (v < 0 ? '\u2212' : '') + Math.abs(v).toFixed(1) + '\u00a0%';
  const show = k => {
    at = Math.max(0, Math.min(last, k));
    for (const cross of document.querySelectorAll('.cross')) {
      cross.style.display = 'block';
      cross.style.left = 100 * data.days[at] / data.days[last] + '%';
    }
    const day = new Date(Date.parse(data.start + 'T00:00Z') + 864e5 * data.days[at]).toISOString().slice(0, 10);
    const read = c => `${c.name} ${c.growth[at].toFixed(2)}\u00d7, ${percent(c.drawdown[at])} from its high`;
    out.textContent = day + ': ' + data.curves.map(read).join('; ');
  };
  const hide = () => {
    for (const cross of document.querySelectorAll('.cross')) cross.style.display = 'none';
    out.textContent = rest;
  };
  const nearest = part => {
    const day = part * data.days[last], k = data.days.findIndex(x => x >= day);
    return k > 0 && day - data.days[k - 1] < data.days[k] - day ? k - 1 : k;
  };
  for (const area of document.querySelectorAll('.area[data-x]')) {
    const plot = area.parentNode, cross = document.createElement('div');
    cross.className = 'cross';
    area.append(cross);
    plot.tabIndex = 0;
    plot.addEventListener('pointermove', e => {
      const box = area.getBoundingClientRect();
      show(nearest(Math.max(0, Math.min(1, (e.clientX - box.left) / box.width))));
    });
    plot.addEventListener('pointerleave', hide);
    plot.addEventListener('blur', hide);
    plot.addEventListener('focus', () => show(at));
    plot.addEventListener('keydown', e => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -52, PageDown: 52, Home: -last, End: last }[e.key];
      if (step) { e.preventDefault(); show(at + step); }
    });
  }
}
