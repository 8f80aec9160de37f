"""The numerical building blocks of the model, without parameters: functions of arrays on a mesh.

    attention/   the mask, kernels for one device, and the strategies that move data between devices
    linear.py    a product with a sharded float32 weight, and its gradients
    rope.py      rotary positions
    loss.py      cross entropy and z-loss without an array of all logits

Start with attention/mask.py: every kernel and the shape of the row follow from its rule. models/ calls all of these.
"""
