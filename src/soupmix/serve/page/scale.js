// What an amount on a slider means: a weight or, where it was measured, a share of what the adapter does alone.

export class Scale {
  /** `weights` are those with 0, 1, ... 100 % of the effect; nothing if nobody measured it: then amounts are weights. */
  constructor(weights) {
    this.weights = weights;
  }

  get isShare() {
    return this.weights !== undefined;
  }

  /** The weight of an amount from 0 to 1 as a request says it. */
  asked(amount) {
    return this.isShare ? `${Math.round(100 * amount)}%` : amount;
  }

  /** The amount from 0 to 1 that a weight is. */
  amountOf(weight) {
    if (!this.isShare) return weight;
    const above = this.weights.findIndex((each) => each >= weight);
    if (above <= 0) return above ? 1 : 0;
    const [low, high] = [this.weights[above - 1], this.weights[above]];
    return (above - (high - weight) / (high - low)) / 100;
  }

  /** An amount for people. */
  told(amount) {
    return this.isShare ? `${Math.round(100 * amount)} %` : amount.toFixed(2);
  }

  /** A weight for people: by its share first, where there are shares. */
  toldWeight(weight) {
    return this.isShare ? `${this.told(this.amountOf(weight))} (weight ${weight.toFixed(2)})` : weight.toFixed(2);
  }
}
