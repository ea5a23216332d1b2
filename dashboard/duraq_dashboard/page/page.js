// Keys go to the terminal from the beginning, and not only once it was clicked.
window.addEventListener("load", () => document.querySelector(".xterm-helper-textarea").focus());
