"""What people would use instead, each computing what `NextFrame` with one layer does, from the same weights.

    h, c = 0;   i, f, g, o = W ∗ [x_t, h] + b;   c = σ(f)∘c + σ(i)∘tanh(g);   h = σ(o)∘tanh(c);   y_t = W_y ∗ h + b_y

`training` is a step of SGD on the mean squared error of all y_t; `forecast` is y_T without anything kept for a
backward, and with a read-out of the last h alone: no more work than is needed.
"""
