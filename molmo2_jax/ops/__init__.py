"""The numerical building blocks of the model, without parameters: functions of arrays on a mesh.

    attention/              the mask, kernels for one device, strategies that move data between devices
    linear.py               a product with a sharded float32 weight
    gradient_reduction.py   weight gradients, summed over the mesh in float32
    rope.py                 rotary positions
    loss.py                 cross entropy and z-loss without an array of all logits

Start with attention/mask.py: every kernel and the shape of the row follow from its rule. models/ calls all of these.
"""
