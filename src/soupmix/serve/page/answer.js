// One streamed answer on the page: its text as it comes, how fast it came, how it ended.

import { chat } from "./api.js";

export class Answer {
  constructor(card, name, announce) {
    this.region = card.querySelector(".answer");
    this.text = this.region.querySelector(".text");
    this.meta = card.querySelector(".meta");
    this.name = name;
    this.announce = announce;
    this.turns = []; // what was said before, as messages
  }

  /** Ask behind what was said, and write what comes. `onGrant` gets the soup. Throws only what concerns the whole page. */
  async ask({ messages, ...body }, signal, onGrant) {
    this.begin();
    try {
      for await (const event of chat({ ...body, messages: [...this.turns, ...messages] }, signal)) this.take(event, onGrant);
      this.end(this.speed());
      this.keep(messages);
    } catch (error) {
      this.fail(error);
      if (error.status === 401) throw error;
    }
  }

  /** Remember what was asked and answered. An answer that failed or was stopped is none: it is asked again. */
  keep(messages) {
    const said = this.text.textContent;
    if (said.trim()) this.turns.push(...messages, { role: "assistant", content: said });
  }

  forget() {
    this.turns = [];
    this.text.textContent = this.meta.textContent = "";
    this.showTurns();
  }

  showTurns() {
    const list = this.region.querySelector(".turns");
    list.replaceChildren(...this.turns.map(itemOf));
    list.hidden = !this.turns.length;
  }

  begin() {
    this.showTurns();
    Object.assign(this, { first: 0, last: 0, tokens: 0, finish: null });
    this.text.textContent = "";
    this.meta.textContent = "waiting";
    this.region.ariaBusy = "true";
    this.region.classList.remove("failed");
  }

  take(event, onGrant) {
    if (event.soup) onGrant(event.soup);
    if (event.usage) this.tokens = event.usage.completion_tokens;
    for (const choice of event.choices) this.write(choice);
  }

  write({ delta, finish_reason }) {
    if (delta.content) {
      this.last = performance.now();
      this.first ||= this.last;
      this.text.append(this.text.hasChildNodes() ? delta.content : delta.content.trimStart());
      this.meta.textContent = "answering";
    }
    this.finish = finish_reason ?? this.finish;
  }

  speed() {
    const seconds = (this.last - this.first) / 1000;
    const rate = seconds > 0 && this.tokens > 1 ? `, ${((this.tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
    return `${this.finish === "length" ? "cut at " : ""}${this.tokens} tokens${rate}`;
  }

  end(meta) {
    this.region.ariaBusy = "false";
    this.meta.textContent = meta;
    this.announce(`${this.name()} answered: ${this.text.textContent}`);
  }

  fail(error) {
    this.region.ariaBusy = "false";
    if (error.name === "AbortError") {
      this.meta.textContent = "stopped";
      return;
    }
    if (!("status" in error)) throw error;
    this.region.classList.add("failed");
    this.meta.textContent = error.message;
    this.announce(`${this.name()}: ${error.message}`);
  }
}

function itemOf({ role, content }) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = content;
  return item;
}
