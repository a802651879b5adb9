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
        target.textContent = target.dataset.copied;
        setTimeout(() => { target.textContent = text; }, 1500);
      });
    } else if ('fullscreen' in target.dataset) {
      target.closest('.sc-result').querySelector('.sc-stage').requestFullscreen();
    } else if (target.closest('.sc-tiles')) {
      for (const tile of target.closest('.sc-tiles').querySelectorAll('button')) {
        tile.setAttribute('aria-pressed', String(tile === target));
      }
    }
  });

  document.addEventListener('input', (event) => {
    if (event.target.matches('.sc-compare input')) {
      event.target.parentElement.style.setProperty('--cut', `${event.target.value}%`);
    }
  });

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

  // A mask: strokes over the photo, in coordinates from 0 to 1, so that undo just draws again.
  class Mask {
    constructor(place) {
      this.canvas = place.querySelector('canvas');
      this.brush = place.querySelector('[data-mask=brush]');
      this.strokes = [];
      this.inverted = false;
      this.cursor = [0.5, 0.5];
      this.photo = new Image();
      this.photo.onload = () => {
        const scale = Math.min(1, 1024 / Math.max(this.photo.width, this.photo.height));
        this.canvas.width = Math.round(this.photo.width * scale);
        this.canvas.height = Math.round(this.photo.height * scale);
        this.draw();
      };
      this.photo.src = place.dataset.photo;
      this.canvas.addEventListener('pointerdown', (event) => {
        this.canvas.setPointerCapture(event.pointerId);
        this.begin(this.at(event));
        event.preventDefault();
      });
      this.canvas.addEventListener('pointermove', (event) => {
        if (event.buttons) this.go(this.at(event));
      });
      this.canvas.addEventListener('keydown', (event) => this.key(event));
      this.canvas.addEventListener('blur', () => this.draw());
      place.addEventListener('click', (event) => {
        const action = event.target.dataset.mask;
        if (action === 'undo') this.strokes.pop();
        if (action === 'clear') { this.strokes = []; this.inverted = false; }
        if (action === 'invert') this.inverted = !this.inverted;
        if (action) this.draw();
      });
    }

    at(event) {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    }

    begin(point) {
      this.strokes.push({ width: this.brush.value / 100, points: [point] });
      this.cursor = point;
      this.draw();
    }

    go(point) {
      if (this.strokes.length) this.strokes.at(-1).points.push(point);
      this.cursor = point;
      this.draw();
    }

    key(event) {
      const moves = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      };
      if (event.key === ' ') {
        if (!event.repeat) this.begin([...this.cursor]);
        this.down = true;
        this.canvas.addEventListener('keyup', () => { this.down = false; }, { once: true });
      } else if (moves[event.key]) {
        const next = this.cursor.map((v, i) => Math.min(1, Math.max(0, v + 0.02 * moves[event.key][i])));
        if (event.shiftKey || this.down) this.go(next); else { this.cursor = next; this.draw(); }
      } else {
        return;
      }
      event.preventDefault();
    }

    trace(context, width, height) {
      context.lineCap = context.lineJoin = 'round';
      for (const stroke of this.strokes) {
        context.lineWidth = stroke.width * Math.max(width, height);
        context.beginPath();
        for (const [x, y] of stroke.points) context.lineTo(x * width, y * height);
        const [x, y] = stroke.points[0];
        context.lineTo(x * width + 0.01, y * height);
        context.stroke();
      }
    }

    mask() {
      const made = document.createElement('canvas');
      made.width = this.canvas.width;
      made.height = this.canvas.height;
      const context = made.getContext('2d');
      context.fillStyle = this.inverted ? 'white' : 'black';
      context.fillRect(0, 0, made.width, made.height);
      context.strokeStyle = this.inverted ? 'black' : 'white';
      this.trace(context, made.width, made.height);
      return made;
    }

    draw() {
      const { width, height } = this.canvas;
      const context = this.canvas.getContext('2d');
      context.globalAlpha = 1;
      context.drawImage(this.photo, 0, 0, width, height);
      const tint = this.mask();
      const over = tint.getContext('2d');
      const pixels = over.getImageData(0, 0, width, height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const inside = pixels.data[i] > 127;
        pixels.data.set(inside ? [99, 102, 241, 150] : [0, 0, 0, 0], i);
      }
      over.putImageData(pixels, 0, 0);
      context.drawImage(tint, 0, 0);
      if (document.activeElement === this.canvas) {
        const [x, y] = this.cursor;
        context.strokeStyle = 'white';
        context.lineWidth = 2;
        context.beginPath();
        context.arc(x * width, y * height, this.brush.value / 200 * Math.max(width, height), 0, 7);
        context.stroke();
      }
    }
  }

  let current = null;
  const find = () => {
    const place = document.querySelector('.sc-mask');
    if (!place) {
      current = null;
    } else if (!current || current.place !== place || current.photo !== place.dataset.photo) {
      current = { place, photo: place.dataset.photo, mask: new Mask(place) };
    }
  };

  window.stylecap = {
    mask: () => (current && current.mask.strokes.length ? current.mask.mask().toDataURL() : ''),
  };

  document.addEventListener('DOMContentLoaded', () => {
    setDark(wanted);
    new MutationObserver(find).observe(document.body, { childList: true, subtree: true });
  });
})();
