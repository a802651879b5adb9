// What happens in the browser alone: comparing, copying, full screen, dark mode, painting a mask.
(() => {
  'use strict';

  const dark = localStorage.getItem('stylecap-dark');
  const wanted = dark === null ? matchMedia('(prefers-color-scheme: dark)').matches : dark === '1';
  const setDark = (on) => document.body && document.body.classList.toggle('dark', on);

  document.addEventListener('click', (event) => {
    const target = event.target.closest('button');
    if (!target) return;
    if ('dark' in target.dataset) {
      const on = !document.body.classList.contains('dark');
      setDark(on);
      localStorage.setItem('stylecap-dark', on ? '1' : '0');
    } else if ('copy' in target.dataset) {
      copy(target.dataset.copy).then(() => {
        const text = target.textContent;
        if (text === target.dataset.copied) return;
        target.textContent = target.dataset.copied;
        setTimeout(() => { target.textContent = text; }, 1500);
      });
    } else if ('fullscreen' in target.dataset) {
      target.closest('.sc-result').querySelector('.sc-stage').requestFullscreen();
    } else if (target.closest('.sc-many')) {
      target.setAttribute('aria-pressed', String(target.getAttribute('aria-pressed') !== 'true'));
    } else if (target.closest('.sc-tiles')) {
      for (const tile of target.closest('.sc-tiles').querySelectorAll('button')) {
        tile.setAttribute('aria-pressed', String(tile === target));
      }
    }
  });

  document.addEventListener('click', (event) => {  // before anybody else hears of it
    const { confirm: question } = event.target.closest('[data-confirm]')?.dataset ?? {};
    if (question && !window.confirm(question)) event.stopPropagation();
  }, true);

  document.addEventListener('input', (event) => {
    if (event.target.matches('.sc-compare input')) {
      event.target.parentElement.style.setProperty('--cut', `${event.target.value}%`);
    }
  });

  // Gradio takes dropped files only: what a dropped folder holds is given to it as if chosen.
  document.addEventListener('drop', async (event) => {
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
    const input = event.target.closest('.block')?.querySelector('input:is([multiple], [webkitdirectory])');
    if (!input || !entries.some((entry) => entry?.isDirectory)) return;
    event.preventDefault();
    event.stopPropagation();
    const held = new DataTransfer();
    for (const file of (await Promise.all(entries.map(filesIn))).flat()) held.items.add(file);
    input.files = held.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  }, true);

  async function filesIn(entry) {
    if (!entry?.isDirectory) {
      return entry ? [await new Promise((found, failed) => { entry.file(found, failed); })] : [];
    }
    const reader = entry.createReader();
    const inside = [];
    for (;;) {  // it tells a hundred at a time
      const some = await new Promise((found, failed) => { reader.readEntries(found, failed); });
      if (!some.length) break;
      inside.push(...some);
    }
    return (await Promise.all(inside.map(filesIn))).flat();
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a page that came over plain HTTP from elsewhere has no clipboard
      const area = document.createElement('textarea');
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
    }
  }

  // The regions found in a photo: a picture in which each is a shade of grey.
  class Regions {
    constructor(address, shown) {
      this.image = new Image();
      this.image.onload = () => { this.read(); shown(); };
      this.image.src = address;
    }

    read() {
      const { width, height } = this.image;
      const { data } = pixelsOf(this.image, width, height);
      this.labels = new Uint8Array(width * height);
      for (let i = 0; i < this.labels.length; i += 1) this.labels[i] = Math.round(data[4 * i] / 30);
      this.areas = [];
      this.borders = this.painted((i) => {
        const x = i % width;
        const right = x + 1 < width && this.labels[i] !== this.labels[i + 1];
        return right || (i + width < this.labels.length && this.labels[i] !== this.labels[i + width]);
      });
    }

    painted(inside) {  // white where it is inside, clear elsewhere
      const { width, height } = this.image;
      const made = blank(width, height);
      const context = made.getContext('2d');
      const pixels = context.createImageData(width, height);
      for (let i = 0; i < width * height; i += 1) {
        if (inside(i)) pixels.data.set([255, 255, 255, 255], 4 * i);
      }
      context.putImageData(pixels, 0, 0);
      return made;
    }

    area(region) {
      this.areas[region] ??= this.painted((i) => this.labels[i] === region);
      return this.areas[region];
    }

    at([x, y]) {
      const { width, height } = this.image;
      const column = Math.min(width - 1, Math.max(0, Math.floor(x * width)));
      const row = Math.min(height - 1, Math.max(0, Math.floor(y * height)));
      return this.labels[row * width + column];
    }
  }

  const blank = (width, height) => Object.assign(document.createElement('canvas'), { width, height });

  function pixelsOf(image, width, height) {
    const context = blank(width, height).getContext('2d', { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  // A mask: a list of what was done, in coordinates from 0 to 1, so that undo just does it again.
  class Mask {
    constructor(place) {
      this.place = place;
      this.canvas = place.querySelector('canvas');
      this.brush = place.querySelector('[data-mask=brush]');
      this.actions = [];
      this.erasing = false;
      this.cursor = [0.5, 0.5];
      this.photo = new Image();
      this.photo.onload = () => this.draw();
      this.canvas.addEventListener('pointerdown', (event) => {
        this.canvas.setPointerCapture(event.pointerId);
        this.begin(this.at(event));
        event.preventDefault();
      });
      this.canvas.addEventListener('pointermove', (event) => {
        if (this.canvas.hasPointerCapture(event.pointerId)) this.go(this.at(event));
      });
      this.canvas.addEventListener('pointerup', (event) => this.end(this.at(event)));
      this.canvas.addEventListener('keydown', (event) => this.key(event));
      this.canvas.addEventListener('keyup', (event) => { if (event.key === ' ') this.down = false; });
      this.canvas.addEventListener('blur', () => { this.down = false; this.draw(); });
      place.addEventListener('click', (event) => this.press(event.target.closest('button')));
    }

    follow() {  // Gradio changes the attributes of a place that stays
      const { photo, regions, marked } = this.place.dataset;
      if (photo === this.shown?.photo && regions === this.shown?.regions) return;
      if (photo !== this.shown?.photo) {
        const before = marked && new Regions(marked, () => this.draw());
        this.actions = before ? [{ regions: before, region: 1 }] : [];
        this.photo.src = photo;
      }
      this.regions = regions && new Regions(regions, () => this.draw());
      this.shown = { photo, regions };
      this.draw();
    }

    press(button) {
      if (!button) return;
      const action = button.dataset.mask;
      if (action === 'undo') this.actions.pop();
      if (action === 'clear') this.actions = [];
      if (action === 'invert') this.actions.push({ invert: true });
      if (action === 'erase') this.erasing = !this.erasing;
      if ('region' in button.dataset && this.regions?.labels) {
        this.choose(Number(button.dataset.region), button.getAttribute('aria-pressed') !== 'true');
      }
      this.draw();
    }

    choose(region, inside) {
      this.actions.push({ regions: this.regions, region, erase: !inside });
    }

    at(event) {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    }

    begin(point) {
      this.actions.push({ width: this.brush.value / 100, points: [point], erase: this.erasing });
      this.cursor = point;
      this.draw();
    }

    go(point) {
      const points = this.actions.at(-1)?.points;
      if (points) points.push(point);
      this.cursor = point;
      this.draw();
    }

    end(point) {  // where regions are shown, a click chooses one instead of painting a dot
      const { points } = this.actions.at(-1) ?? {};
      const far = points?.some(([x, y]) => Math.hypot(x - point[0], y - point[1]) > 0.01);
      if (!points || far || !this.regions?.labels) return;
      this.actions.pop();
      this.choose(this.regions.at(point), !this.isInside(point));
      this.draw();
    }

    isInside([x, y]) {
      const { width, height } = this.canvas;
      const context = this.layer().getContext('2d');
      return context.getImageData(Math.floor(x * width), Math.floor(y * height), 1, 1).data[3] > 127;
    }

    key(event) {
      const moves = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      };
      if (event.key === ' ') {
        if (!event.repeat) this.begin([...this.cursor]);
        this.down = true;
      } else if (moves[event.key]) {
        const next = this.cursor.map((v, i) => Math.min(1, Math.max(0, v + 0.02 * moves[event.key][i])));
        if (event.shiftKey || this.down) this.go(next); else { this.cursor = next; this.draw(); }
      } else {
        return;
      }
      event.preventDefault();
    }

    layer() {  // opaque inside, clear outside
      const { width, height } = this.canvas;
      const made = blank(width, height);
      const context = made.getContext('2d', { willReadFrequently: true });
      context.lineCap = context.lineJoin = 'round';
      context.strokeStyle = context.fillStyle = 'white';
      for (const action of this.actions) {
        context.globalCompositeOperation = action.erase ? 'destination-out' : 'source-over';
        if (action.invert) {
          context.globalCompositeOperation = 'xor';
          context.fillRect(0, 0, width, height);
        } else if (action.regions) {
          if (!action.regions.labels) continue;  // not loaded yet
          context.drawImage(action.regions.area(action.region), 0, 0, width, height);
        } else {
          const [x, y] = action.points[0];
          context.lineWidth = action.width * Math.max(width, height);
          context.beginPath();
          for (const point of action.points) context.lineTo(point[0] * width, point[1] * height);
          context.lineTo(x * width + 0.01, y * height);
          context.stroke();
        }
      }
      return made;
    }

    // White inside and black outside, as a PNG; nothing where nothing was marked, and while the photo
    // or a mask that comes back is still being loaded.
    address() {
      const loaded = this.actions.every(({ regions }) => !regions || regions.labels)
        && this.canvas.width === this.photo.naturalWidth;
      if (!loaded || !this.actions.length) return '';
      const made = blank(this.canvas.width, this.canvas.height);
      const context = made.getContext('2d');
      context.fillRect(0, 0, made.width, made.height);
      context.drawImage(this.layer(), 0, 0);
      return made.toDataURL();
    }

    draw() {
      if (!this.photo.naturalWidth) return;
      const { width, height } = this.photo;
      Object.assign(this.canvas, { width, height });
      const context = this.canvas.getContext('2d');
      const layer = this.layer();
      this.drawChips(layer);
      const erase = this.place.querySelector('[data-mask=erase]');
      erase.setAttribute('aria-pressed', String(this.erasing));
      const tint = layer.getContext('2d');
      tint.globalCompositeOperation = 'source-in';
      tint.fillStyle = '#6366f1';
      tint.fillRect(0, 0, width, height);
      context.drawImage(this.photo, 0, 0, width, height);
      context.globalAlpha = 0.6;
      context.drawImage(layer, 0, 0);
      context.globalAlpha = 1;
      if (this.regions?.labels) context.drawImage(this.regions.borders, 0, 0, width, height);
      if (document.activeElement === this.canvas) {
        const [x, y] = this.cursor;
        context.strokeStyle = 'white';
        context.lineWidth = 2;
        context.beginPath();
        context.arc(x * width, y * height, this.brush.value / 200 * Math.max(width, height), 0, 7);
        context.stroke();
      }
    }

    drawChips(layer) {  // a region is chosen if most of it is inside
      if (!this.regions?.labels) return;
      const { labels, image: { width, height } } = this.regions;
      const { data } = pixelsOf(layer, width, height);
      const balance = [];
      for (let i = 0; i < labels.length; i += 7) {
        balance[labels[i]] = (balance[labels[i]] ?? 0) + (data[4 * i + 3] > 127 ? 1 : -1);
      }
      const scale = 160 / Math.max(width, height);
      for (const chip of this.place.querySelectorAll('[data-region]')) {
        const region = Number(chip.dataset.region);
        chip.setAttribute('aria-pressed', String(balance[region] > 0));
        const small = chip.querySelector('canvas');
        [small.width, small.height] = [Math.round(width * scale), Math.round(height * scale)];
        const context = small.getContext('2d');
        context.drawImage(this.regions.area(region), 0, 0, small.width, small.height);
        context.globalCompositeOperation = 'source-in';
        context.drawImage(this.photo, 0, 0, small.width, small.height);
      }
    }
  }

  let mask = null;
  const find = () => {
    const place = document.querySelector('.sc-mask');
    if (place !== mask?.place) mask = place && new Mask(place);
    mask?.follow();
  };

  window.stylecap = {
    mask: () => mask?.address() ?? '',
  };

  document.addEventListener('DOMContentLoaded', () => {
    setDark(wanted);
    new MutationObserver(find).observe(document.body, {
      childList: true, subtree: true, attributeFilter: ['data-photo', 'data-regions'],
    });
  });
})();
