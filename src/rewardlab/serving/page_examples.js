"use strict";
// What the playground's example buttons fill in. Files of this page share one script.

const EXAMPLES = {
  "A fact": {
    turns: [{ role: "user", text: "What is the capital of Australia?" }],
    completions: [
      "Canberra. It was founded as the capital in 1913, as a compromise between Sydney and Melbourne.",
      "Sydney, which is also the largest city.",
    ],
  },
  "A complaint": {
    turns: [{ role: "user", text: "My order is two weeks late and nobody answers my mails. What now?" }],
    completions: [
      "I am sorry: two weeks without an answer is not acceptable. Send me the order number, and I will find out today " +
        "where it is and refund the postage.",
      "Please be patient. Delays happen.",
      "That is not my department.",
    ],
  },
  "A conversation": {
    turns: [
      { role: "system", text: "You are a careful assistant. Say so when you do not know." },
      { role: "user", text: "Who won the chess game I played yesterday?" },
      { role: "assistant", text: "I cannot know that. Do you have the moves?" },
      { role: "user", text: "No. Just guess." },
    ],
    completions: [
      "A guess would be a coin flip, so I would rather not pretend. If you remember the last moves, I can judge the position.",
      "You won, congratulations!",
    ],
  },
  "Steps": {
    kind: "step", // only of a model that reads them
    turns: [{ role: "user", text: "A ticket costs 12 and two of five people pay half. What do they pay together?" }],
    completions: [
      "Three people pay 12 each, 3 * 12 = 36.\nTwo people pay 6 each, 2 * 6 = 12.\nTogether they pay 36 + 12 = 48.",
      "Three people pay 12 each, 3 * 12 = 36.\nTwo people pay 6 each, 2 * 6 = 18.\nTogether they pay 36 + 18 = 54.",
    ],
  },
};

