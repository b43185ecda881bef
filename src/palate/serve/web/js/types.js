/**
 * What the server says, as the page reads it. The names are those of `docs/serving.md`.
 *
 * @typedef {Record<string, number>} Shares Numbers by name; those of a preference sum to one.
 *
 * @typedef {object} Objective
 * @property {string} name
 * @property {string} description
 *
 * @typedef {object} Expert
 * @property {string} name
 * @property {Shares} wanted What it was trained for, by objective.
 * @property {number} size_bytes
 * @property {string} card Markdown.
 *
 * @typedef {object} Member
 * @property {string} name
 * @property {Shares} coefficients By expert; empty for the base.
 * @property {Shares} values What it is worth to each objective at least, reward units.
 *
 * @typedef {object} Certificate
 * @property {number|null} additive_gap Reward units; null: nothing is known beyond the listed policies.
 * @property {number|null} multiplicative_gap
 * @property {Shares} worst_preference
 * @property {number} confidence
 * @property {string} kind
 * @property {string[]} assumptions
 *
 * @typedef {object} Library
 * @property {string} base
 * @property {Objective[]} objectives
 * @property {string} fingerprint
 * @property {Expert[]} experts
 * @property {string[]} methods
 * @property {{expert: string, coefficient: number}|null} floor
 * @property {{members: Member[], certificate: Certificate}|null} portfolio
 * @property {{max_tokens: number, max_candidates: number}} limits
 * @property {boolean} needs_key
 *
 * @typedef {object} Gain Over the base, in reward, with its 95 % interval.
 * @property {number} estimate
 * @property {number} low
 * @property {number} high
 *
 * @typedef {object} MethodCost What a method does for a preference.
 * @property {string} method
 * @property {string} decides Another one only for `auto`.
 * @property {number} n_candidates
 * @property {number} n_passes Of the base per token, candidates included.
 * @property {Gain|null} predicted_utility Null: not measured.
 *
 * @typedef {object} Methods
 * @property {MethodCost[][]} points Once for each preference.
 * @property {number} n_prompts Zero: nothing was measured.
 * @property {string[]} self_judged Objectives judged by the reward of training.
 *
 * @typedef {object} RegretPoint
 * @property {string} member
 * @property {number|null} loss Reward units; null: nothing is known beyond the listed policies.
 * @property {number} value Reward units.
 * @property {number|null} margin Reward units.
 *
 * @typedef {object} Estimate A number with its 95 % credible interval.
 * @property {string} name
 * @property {number} mean
 * @property {number} low
 * @property {number} high
 *
 * @typedef {object} Belief
 * @property {"nothing"|"observing"|"applied"} learning
 * @property {number} n_feedback
 * @property {Estimate[]} experts
 * @property {Estimate[]} objectives
 * @property {Shares|null} preference
 * @property {{coefficients: Shares, scale: number, kl: number, budget: number, gain: Estimate}} soup
 * @property {number} unknown_share Of what is not known of a new user.
 * @property {boolean} is_settled Whether more questions would change little.
 *
 * @typedef {object} User
 * @property {string} user
 * @property {Shares|null} preference As stated.
 * @property {Belief} belief
 *
 * @typedef {object} UserRow
 * @property {string} user
 * @property {number} n_feedback
 *
 * @typedef {object} Origin How an answer came about: the `palate` object of a response.
 * @property {string|null} response
 * @property {string|null} user
 * @property {string} method
 * @property {string[]} members
 * @property {Shares} coefficients
 * @property {string} reason
 * @property {number|null} certified_loss Reward units.
 * @property {Gain|null} predicted_utility Reward units.
 * @property {number} n_candidates
 * @property {number} n_passes Of the base per token, candidates included.
 * @property {number|null} lead Of the kept candidate; null with one, or while waiting.
 * @property {boolean} is_waiting Whether candidates are still being drawn.
 * @property {"nothing"|"observing"|"applied"} learning
 * @property {number} n_feedback
 * @property {number} seed
 *
 * @typedef {object} Token
 * @property {string} text
 * @property {number} log_prob Nats.
 * @property {Shares} wrote Sums to one, over experts and `base`.
 *
 * @typedef {object} Question
 * @property {string} response
 * @property {"answers"|"words"} kind
 * @property {{text: string, source: string}[]} answers
 * @property {string} now What the user would get now.
 * @property {number} information_nats
 *
 * @typedef {object} Receipt
 * @property {string} id
 * @property {number} n_feedback
 * @property {number} n_responses
 * @property {number} n_rows
 * @property {number} erased_at Seconds since 1970.
 * @property {boolean} is_cleared
 * @property {string} remains What the database's files still hold, and until when.
 */

export {};
