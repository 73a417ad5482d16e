"use strict";
(() => {
  const section = document.querySelector(".films");
  const details = [...document.querySelectorAll("details")];
  // Paper unfolds nothing by itself.
  addEventListener("beforeprint", () => details.forEach((one) => { one.dataset.was = one.open ? "1" : ""; one.open = true; }));
  addEventListener("afterprint", () => details.forEach((one) => { one.open = one.dataset.was === "1"; }));
  if (!section) return;

  const player = section.querySelector(".player");
  const films = [...section.querySelectorAll(".film")];
  const panels = [...player.querySelectorAll("canvas")];
  const slider = player.querySelector("input[type=range]");
  const button = player.querySelector(".play");
  const words = player.querySelector("output");
  let film = films[0];
  let timer = 0;

  const heads = () => [...film.querySelectorAll(".time")];
  const picture = (row, time) => film.querySelector(`img[data-row="${row}"][data-time="${time}"]`);

  const draw = (canvas, image) => {
    const any = image || picture("truth", 0);
    canvas.width = any.naturalWidth || any.width; // setting a width clears the canvas
    canvas.height = any.naturalHeight || any.height;
    canvas.classList.toggle("fine", canvas.width > 440);
    canvas.classList.toggle("blank", !image);
    if (image) canvas.getContext("2d").drawImage(image, 0, 0);
  };

  const show = (time) => {
    const shown = time < Number(film.dataset.shown);
    slider.value = time;
    words.textContent = heads()[time].dataset.says;
    slider.setAttribute("aria-valuetext", words.textContent);
    heads().forEach((head, at) => head.classList.toggle("now", at === time));
    for (const canvas of panels) {
      const row = canvas.dataset.row;
      draw(canvas, picture(shown && row === "forecast" ? "truth" : row, time));
      canvas.setAttribute("aria-label", `${row}, ${words.textContent}`);
    }
  };

  const stop = () => {
    clearTimeout(timer);
    timer = 0;
    button.textContent = "Play";
  };
  const pace = () => Math.min(600, Math.max(150, 6000 / heads().length));
  const advance = () => {
    const time = (Number(slider.value) + 1) % heads().length;
    show(time);
    timer = setTimeout(advance, time === heads().length - 1 ? 3 * pace() : pace());
  };
  const play = () => {
    button.textContent = "Pause";
    timer = setTimeout(advance, pace());
  };
  const choose = (index) => {
    film = films[index];
    films.forEach((one) => one.classList.toggle("aside", one !== film));
    slider.max = heads().length - 1;
    show(Math.min(Number(slider.value), heads().length - 1));
  };

  button.addEventListener("click", () => (timer ? stop() : play()));
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  player.addEventListener("change", (event) => { if (event.target.name === "film") choose(Number(event.target.value)); });

  const begin = () => {
    player.hidden = false;
    choose(0);
    show(Number(film.dataset.shown)); // the first forecast, for those who want nothing to move
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  };
  // A picture that is not decoded yet draws nothing.
  Promise.all([...section.querySelectorAll(".film img")].map((image) => image.decode().catch(() => {}))).then(begin);
})();
